//! A Redis in memory with its own clock: owns the records and the faults. It counts as `take.lua` does, in integers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use mcp_protocol::resp::Reply;

use crate::redis::{Command, Commands};
use crate::{Millis, StoreError};

#[derive(Clone, Default)]
pub(super) struct Fake(Rc<State>);

#[derive(Default)]
struct State {
    now_us: Cell<u64>,
    records: RefCell<HashMap<Vec<u8>, (u64, u64)>>,
    knows_script: Cell<bool>,
    down: RefCell<Option<StoreError>>,
    /// Replies that were let go, of those that are held back.
    held: Cell<Option<u32>>,
    asked: Cell<u32>,
    evals: Cell<u32>,
    charged: Cell<u64>,
    last_wanted: Cell<u64>,
}

impl Fake {
    pub(super) fn now(&self) -> Millis {
        self.0.now_us.get() / 1_000
    }

    pub(super) fn now_us(&self) -> u64 {
        self.0.now_us.get()
    }

    pub(super) fn advance_ms(&self, ms: u64) {
        self.advance_us(ms * 1_000);
    }

    pub(super) fn advance_us(&self, us: u64) {
        self.0.now_us.set(self.0.now_us.get() + us);
    }

    pub(super) fn set_down(&self, error: Option<StoreError>) {
        *self.0.down.borrow_mut() = error;
    }

    pub(super) fn forget_script(&self) {
        self.0.knows_script.set(false);
    }

    /// From now on no command is carried out before [`Fake::release`].
    pub(super) fn hold(&self) {
        self.0.held.set(Some(0));
    }

    /// Lets one command go.
    pub(super) fn release(&self) {
        self.0.held.set(self.0.held.get().map(|free| free + 1));
    }

    /// Questions that were carried out.
    pub(super) fn asked(&self) -> u32 {
        self.0.asked.get()
    }

    /// Those among them that carried the script.
    pub(super) fn evals(&self) -> u32 {
        self.0.evals.get()
    }

    /// Tokens given out.
    pub(super) fn charged(&self) -> u64 {
        self.0.charged.get()
    }

    /// Tokens that the last question was for.
    pub(super) fn last_wanted(&self) -> u64 {
        self.0.last_wanted.get()
    }

    fn carry_out(&self, command: &Command<'_>) -> Result<Reply, StoreError> {
        let state = &self.0;
        if let Some(error) = &*state.down.borrow() {
            return Err(error.clone());
        }
        match command.args[0] {
            b"EVALSHA" if !state.knows_script.get() => {
                return Err(StoreError::refused("NOSCRIPT No matching script. Please use EVAL."));
            }
            b"EVALSHA" => {}
            b"EVAL" => {
                state.knows_script.set(true);
                state.evals.set(state.evals.get() + 1);
            }
            other => panic!("the limiter sent {}", String::from_utf8_lossy(other)),
        }
        let number = |at: usize| std::str::from_utf8(command.args[at]).unwrap().parse::<u64>().unwrap();
        let (rate, burst, wanted) = (number(4), number(5) * 1_000_000, number(6));
        assert_eq!((command.args[2], command.key), (&b"1"[..], Some(command.args[3])));
        state.asked.set(state.asked.get() + 1);
        state.last_wanted.set(wanted);
        let now = state.now_us.get();
        let mut records = state.records.borrow_mut();
        let (owed, at) = records.get(command.args[3]).copied().unwrap_or_default();
        let debt = burst.min(owed.saturating_sub((now - at) * rate));
        let granted = wanted.min((burst - debt) / 1_000_000);
        let debt = debt + granted * 1_000_000;
        records.insert(command.args[3].to_vec(), (debt, now));
        state.charged.set(state.charged.get() + granted);
        let next_us = (debt + 1_000_000).saturating_sub(burst).div_ceil(rate);
        Ok(Reply::Array(vec![Reply::Integer(granted as i64), Reply::Integer(next_us as i64)]))
    }
}

impl Commands for Fake {
    async fn call(&self, command: &Command<'_>) -> Result<Reply, StoreError> {
        poll_fn(|_| match self.0.held.get() {
            Some(0) => Poll::Pending,
            free => {
                self.0.held.set(free.map(|free| free - 1));
                Poll::Ready(())
            }
        })
        .await;
        self.carry_out(command)
    }
}
