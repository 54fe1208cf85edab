//! The shard's downstream connections: owns the table from an event's token to a connection. Never their IO.

use std::cell::RefCell;
use std::rc::Rc;

use super::conn::Conn;
use crate::net::token::{Kind, Token};

#[derive(Default)]
pub(crate) struct Conns {
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

struct Slot {
    generation: u32,
    conn: Option<Rc<Conn>>,
}

impl Conns {
    /// Makes room for a connection and says what its events will carry.
    pub(crate) fn insert(&self, make: impl FnOnce(Token) -> Rc<Conn>) -> Rc<Conn> {
        let mut inner = self.inner.borrow_mut();
        let index = match inner.free.pop() {
            Some(index) => index as usize,
            None => {
                inner.slots.push(Slot { generation: 0, conn: None });
                inner.slots.len() - 1
            }
        };
        let slot = &mut inner.slots[index];
        let conn = make(Token::new(Kind::Conn, slot.generation, index));
        slot.conn = Some(conn.clone());
        conn
    }

    /// The connection that a token names, unless it is gone.
    pub(crate) fn get(&self, token: Token) -> Option<Rc<Conn>> {
        let inner = self.inner.borrow();
        inner.slots.get(token.index as usize)?.conn.as_ref().filter(|conn| conn.token == token).cloned()
    }

    /// Takes a connection out; later events of its token find nothing.
    pub(crate) fn remove(&self, token: Token) -> Option<Rc<Conn>> {
        let mut inner = self.inner.borrow_mut();
        let slot = inner.slots.get_mut(token.index as usize)?;
        let conn = slot.conn.take_if(|conn| conn.token == token)?;
        slot.generation = slot.generation.wrapping_add(1);
        inner.free.push(token.index);
        Some(conn)
    }

    pub(crate) fn len(&self) -> usize {
        let inner = self.inner.borrow();
        inner.slots.len() - inner.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All connections at this moment.
    pub(crate) fn all(&self) -> Vec<Rc<Conn>> {
        self.inner.borrow().slots.iter().filter_map(|slot| slot.conn.clone()).collect()
    }
}
