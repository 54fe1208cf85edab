//! What is known of a socket alone: owns its reader and the use of its session. It never sends and never starts anything.

use mcp_protocol::ws::Reader;

use crate::door::framed::Framed;
use crate::shard::tasks::TaskId;

#[derive(Default)]
pub(crate) struct Ws {
    pub(super) framed: Framed,
    pub(super) reader: Reader,
    /// Uses the session once in a while.
    pub(super) touching: Option<TaskId>,
}
