//! Our client on the gateway's drivers: owns a round of it. One shard, one connection, a deadline per command.

use std::future::pending;
use std::rc::Rc;

use mcp_engine::runtime::Executor;
use mcp_engine::standalone::{self, StoreRuntime};
use mcp_protocol::resp::Reply;
use mcp_shard_store::redis::{Client, Command, Events, Health, Settings, Topology};
use mcp_shard_store::runtime::{Address, Runtime};

use super::VALUE_BYTES;
use super::callers::{Countdown, Kind, Load, key, value};
use super::usage::{Sample, Usage};

/// How long to wait before looking again whether the client has connected, in milliseconds.
const LOOK_AGAIN_MS: u64 = 5;

/// Nothing is cached here.
struct NoCopies;

impl Events for NoCopies {
    fn invalidated(&self, _keys: Option<&[&[u8]]>) {}
}

pub(crate) fn has_ring() -> bool {
    standalone::run(Executor::IoUring, None, |_| async {}).is_ok()
}

pub(crate) fn round(driver: Executor, load: &Load) -> Sample {
    let load = *load;
    standalone::run(driver, None, |runtime| async move {
        let address = Address { host: "127.0.0.1".into(), port: load.port };
        let settings = Settings::new(Topology::Single(address));
        let client = Client::new(runtime.clone(), settings, Rc::new(NoCopies));
        runtime.on_flush(&client, |client| client.flush());
        while client.health() != Health::Up {
            let _ = runtime.deadline(runtime.now() + LOOK_AGAIN_MS, pending::<()>()).await;
        }
        call(&runtime, &client, load.warm_up()).await;
        let before = Usage::own();
        call(&runtime, &client, load).await;
        before.sample(load.commands())
    })
    .expect("the driver works")
}

async fn call(runtime: &StoreRuntime, client: &Rc<Client<StoreRuntime>>, load: Load) {
    let countdown = Countdown::of(load.callers);
    for caller in 0..load.callers {
        let (client, countdown) = (client.clone(), countdown.clone());
        runtime.spawn(Box::pin(async move {
            one_caller(&client, key(caller).as_bytes(), load).await;
            countdown.one_is_done();
        }));
    }
    countdown.all_are_done().await;
}

async fn one_caller(client: &Client<StoreRuntime>, key: &[u8], load: Load) {
    let value = value();
    for _ in 0..load.each {
        match load.kind {
            Kind::Get => {
                let reply = client.call(&Command::read("get", key, &[b"GET", key])).await;
                assert!(matches!(reply, Ok(Reply::Bulk(bytes)) if bytes.len() == VALUE_BYTES));
            }
            Kind::Set => {
                let reply = client.call(&Command::write("set", key, &[b"SET", key, &value])).await;
                assert!(matches!(reply, Ok(Reply::Ok)));
            }
        }
    }
}
