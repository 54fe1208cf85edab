//! What a shard has learned of a server by asking it: owns its era (does it speak 2026-07-28?) and which tool parameters
//! are mirrored into headers. It never decides what follows from that.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use mcp_protocol::mcp::ToolHeaders;

use crate::shard::clock::{Clock, Millis};

/// A server may be replaced by one of the other era; that of a legacy client that finds a modern server shows at once, so
/// only what is refused on memory alone is asked again soon.
const LEGACY_REMEMBERED: Duration = Duration::from_secs(30);
const MODERN_REMEMBERED: Duration = Duration::from_secs(600);
/// How long a list of mirrored parameters is believed; the server itself validates, too.
const TOOLS_REMEMBERED: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Knowledge {
    era: Cell<Option<(Era, Millis)>>,
    tools: RefCell<Option<Tools>>,
    /// A tools/list is on its way: others do not ask as well.
    asking_tools: Cell<bool>,
}

/// Which revisions a server speaks, as far as the gateway can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    Modern,
    LegacyOnly,
}

struct Tools {
    by_name: HashMap<String, Rc<ToolHeaders>>,
    at: Millis,
}

impl Knowledge {
    pub(crate) fn era(&self, now: Millis) -> Option<Era> {
        let (era, at) = self.era.get()?;
        let remembered = match era {
            Era::Modern => MODERN_REMEMBERED,
            Era::LegacyOnly => LEGACY_REMEMBERED,
        };
        (now.saturating_sub(at) < remembered.as_millis() as Millis).then_some(era)
    }

    pub(crate) fn learn_era(&self, era: Era, now: Millis) {
        self.era.set(Some((era, now)));
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

    pub(crate) fn give_up_tools(&self) {
        self.asking_tools.set(false);
    }

    /// The parameters of a tool that must stand in headers; `None` when it has none, or none are known.
    pub(crate) fn tool(&self, name: &str) -> Option<Rc<ToolHeaders>> {
        self.tools.borrow().as_ref()?.by_name.get(name).cloned()
    }
}
