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
    /// What a new slot's generation begins with: not below that of any slot that was given up, so that no event of an old
    /// connection finds a new one.
    first_generation: u32,
    removed: u64,
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
                let generation = inner.first_generation;
                inner.slots.push(Slot { generation, conn: None });
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
        inner.removed += 1;
        Some(conn)
    }

    /// Connections that were ever taken out.
    pub(crate) fn removed(&self) -> u64 {
        self.inner.borrow().removed
    }

    /// Gives up the places behind the last connection.
    pub(crate) fn release(&self) {
        let inner = &mut *self.inner.borrow_mut();
        let used = inner.slots.iter().rposition(|slot| slot.conn.is_some()).map_or(0, |last| last + 1);
        let given_up = inner.slots.drain(used..).map(|slot| slot.generation).max();
        inner.first_generation = inner.first_generation.max(given_up.unwrap_or(0));
        inner.free.retain(|index| (*index as usize) < used);
        inner.slots.shrink_to_fit();
        inner.free.shrink_to_fit();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots as connections would leave them; a connection itself needs a shard.
    fn conns(generations: &[u32]) -> Conns {
        let slots =
            generations.iter().map(|generation| Slot { generation: *generation, conn: None }).collect();
        let free = (0..generations.len() as u32).collect();
        Conns { inner: RefCell::new(Inner { slots, free, ..Inner::default() }) }
    }

    #[test]
    fn places_that_were_given_up_never_come_back_under_an_old_generation() {
        let conns = conns(&[3, 9, 4]);
        conns.release();
        assert!(conns.is_empty());
        let inner = conns.inner.borrow();
        assert_eq!((inner.slots.capacity(), inner.free.capacity(), inner.first_generation), (0, 0, 9));
    }
}
