//! What a shard has learned of a server by asking it: owns which tool parameters are mirrored into headers, and what is
//! being asked. What all shards know stands in the table. It never decides what follows from that.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use mcp_protocol::mcp::ToolHeaders;

use crate::shard::clock::{Clock, Millis};

/// How often at most a server is asked for its era because of what its answers look like: those of any client may look so.
const DISCOVERY_PAUSE: Duration = Duration::from_secs(1);
/// How long a list of mirrored parameters is believed; the server itself validates, too.
const TOOLS_REMEMBERED: Duration = Duration::from_secs(60);
/// Bytes of clients' lists of tools that are looked through per second; the first of a second always is.
const HINT_BYTES_PER_SECOND: usize = 256 << 10;

#[derive(Default)]
pub(crate) struct Knowledge {
    /// Its era is being found out.
    discovering: Cell<bool>,
    /// When it may be again.
    discover_from: Cell<Millis>,
    tools: RefCell<Option<Tools>>,
    /// A tools/list is on its way: others do not ask as well.
    asking_tools: Cell<bool>,
    /// The second in which lists were looked through for hints, and how much of them.
    hints_read: Cell<(Millis, usize)>,
}

struct Tools {
    by_name: HashMap<String, Rc<ToolHeaders>>,
    at: Millis,
}

impl Knowledge {
    /// Whether the server's era is to be found out now: not while that is being done, nor soon after. Whoever does it calls
    /// [`Knowledge::end_discovery`] then.
    pub(crate) fn should_discover(&self, now: Millis) -> bool {
        now >= self.discover_from.get() && !self.discovering.replace(true)
    }

    pub(crate) fn end_discovery(&self, now: Millis) {
        self.discovering.set(false);
        self.discover_from.set(now + DISCOVERY_PAUSE.as_millis() as Millis);
    }

    /// Whether this caller should ask for the tools now; it must call [`Knowledge::learn_tools`] or
    /// [`Knowledge::give_up_tools`] then.
    pub(crate) fn should_ask_tools(&self, now: Millis) -> bool {
        let fresh = self
            .tools
            .borrow()
            .as_ref()
            .is_some_and(|tools| now.saturating_sub(tools.at) < TOOLS_REMEMBERED.as_millis() as Millis);
        !fresh && !self.asking_tools.replace(true)
    }

    pub(crate) fn learn_tools(&self, tools: Vec<ToolHeaders>, clock: &Clock) {
        let by_name = tools.into_iter().map(|tool| (tool.tool.clone(), Rc::new(tool))).collect();
        *self.tools.borrow_mut() = Some(Tools { by_name, at: clock.now() });
        self.asking_tools.set(false);
    }

    /// Whether a list of tools of so many bytes may be looked through for hints now.
    pub(crate) fn may_learn_hints(&self, bytes: usize, now: Millis) -> bool {
        let (second, read) = self.hints_read.get();
        let read = if second == now / 1000 { read } else { 0 };
        let may = read == 0 || read + bytes <= HINT_BYTES_PER_SECOND;
        if may {
            self.hints_read.set((now / 1000, read + bytes));
        }
        may
    }

    pub(crate) fn give_up_tools(&self) {
        self.asking_tools.set(false);
    }

    /// The parameters of a tool that must stand in headers; `None` when it has none, or none are known.
    pub(crate) fn tool(&self, name: &str) -> Option<Rc<ToolHeaders>> {
        self.tools.borrow().as_ref()?.by_name.get(name).cloned()
    }
}
