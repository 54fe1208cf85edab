//! A call as whoever asked sees it: owns the place of its answer on the link, what is said to the owner about it, and its
//! cancellation. Never a message's content.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::super::link::Link;
use super::frame::{AskerWord, Failed};
use super::inbox::Counted;
use crate::upstream::answer::{Source, Step, Told};
use crate::upstream::call::CallError;

/// A call that is on its way, or whose answer is. Dropped before its end, it cancels the call.
pub(in crate::peer) struct Asked {
    pub(in crate::peer) link: Rc<Link>,
    pub(in crate::peer) number: u64,
    pub(in crate::peer) inbox: Rc<Counted>,
}

impl Asked {
    /// Waits for the answer's beginning.
    ///
    /// # Errors
    /// Why there is none.
    pub(in crate::peer) async fn told(self) -> Result<Told, Failed> {
        let head = poll_fn(|cx| self.inbox.with(|inbox| inbox.poll_head(cx))).await?;
        Ok(Told::new(head.status, head.fields, head.length, Box::new(self)))
    }
}

impl Source for Asked {
    fn poll_piece(&mut self, cx: &mut Context<'_>, piece: &mut Vec<u8>) -> Poll<Result<Step, CallError>> {
        let (step, credit) = self.inbox.with(|inbox| (inbox.poll_piece(cx, piece), inbox.take_credit()));
        if let Some(bytes) = credit {
            self.link.say(AskerWord::Credit { call: self.number, bytes });
        }
        step.map_err(Failed::error)
    }

    fn is_ready(&self) -> bool {
        self.inbox.with(|inbox| inbox.unread() > 0)
    }

    fn detach(&mut self) {}
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.link.forget(self.number);
        if !self.inbox.with(|inbox| inbox.has_ended()) {
            self.link.say(AskerWord::Cancel { call: self.number });
        }
    }
}
