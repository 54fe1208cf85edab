//! The gateway's engine. The directories follow a request's way: [`runtime`] hosts a `shard`, whose `net` listeners accept,
//! `tls` decrypts, a `door` makes messages, `exchange` takes them through `policy` to an `upstream` and back, and `respond`
//! says what is answered when that fails. `boot` brings the process up, `admin` shows its `metrics`.

mod admin;
mod banner;
mod boot;
pub mod cli;
mod connect;
pub mod demo;
mod door;
mod exchange;
pub mod fatal;
mod keeper;
mod metrics;
mod net;
mod peer;
mod policy;
mod process;
mod reload;
mod respond;
pub mod runtime;
mod setup;
mod shard;
mod signals;
pub mod standalone;
mod store;
mod tls;
mod upstream;
mod websocket;
