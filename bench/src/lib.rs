//! The load driver that ships with the gateway: an open- and closed-loop MCP client for measuring, and a fast MCP
//! server to measure against.
//!
//! Everything runs on threads with an epoll loop of their own; no async runtime. The crate shares no code with the
//! gateway, so that it can judge the gateway's bytes.
//!
//! Where things are: [`args`] the command line, [`load`] the client, [`report`] its results, [`upstream`] the server,
//! [`targets`] what is measured, [`compare`] and [`scenario`] what measures it, [`sys`] system calls, [`http`], [`json`] and
//! [`mcp`] the formats.

pub mod args;
pub mod compare;
pub mod http;
pub mod json;
pub mod load;
pub mod mcp;
pub mod report;
pub mod scenario;
pub mod sys;
pub mod targets;
pub mod units;
pub mod upstream;
