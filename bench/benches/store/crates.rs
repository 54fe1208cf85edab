//! The crates `fred` and `redis`, each in the way that its documentation recommends for many callers: one connection that
//! all share, pipelined by itself, on tokio's runtime for one thread. Owns a round of each.

use std::future::Future;
use std::time::Duration;

use fred::prelude::{Builder, ClientLike, Config, Expiration, KeysInterface, ServerConfig};
use redis::AsyncCommands;

use super::VALUE_BYTES;
use super::callers::{Kind, Load, key, value};
use super::usage::{Sample, Usage};

/// The deadline that our client has by default.
const DEADLINE: Duration = Duration::from_millis(500);

pub(crate) fn fred_round(load: &Load) -> Sample {
    on_tokio(async {
        let config =
            Config { server: ServerConfig::new_centralized("127.0.0.1", load.port), ..Config::default() };
        let mut builder = Builder::from_config(config);
        if load.deadlines {
            builder.with_performance_config(|config| config.default_command_timeout = DEADLINE);
        }
        let client = builder.build().expect("the settings are right");
        client.init().await.expect("the server accepts connections");
        let calls = |load: Load| {
            let client = &client;
            move |caller| {
                let client = client.clone();
                async move {
                    let (key, value) = (key(caller), value());
                    for _ in 0..load.each {
                        match load.kind {
                            Kind::Get => {
                                let got: fred::bytes::Bytes = client.get(&key).await.expect("a value");
                                assert_eq!(got.len(), VALUE_BYTES);
                            }
                            Kind::Set => {
                                let no_expiry: Option<Expiration> = None;
                                let set = client.set::<(), _, _>(&key, &value[..], no_expiry, None, false);
                                set.await.expect("it is set");
                            }
                        }
                    }
                }
            }
        };
        let sample = measure(load, calls).await;
        client.quit().await.expect("the connection ends");
        sample
    })
}

pub(crate) fn redis_round(load: &Load) -> Sample {
    on_tokio(async {
        let client = redis::Client::open(("127.0.0.1", load.port)).expect("the address is right");
        let config = redis::AsyncConnectionConfig::new()
            .set_response_timeout(load.deadlines.then_some(DEADLINE))
            .set_pipeline_buffer_size(load.callers.max(50));
        let connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .expect("the server accepts connections");
        let calls = |load: Load| {
            let connection = &connection;
            move |caller| {
                let mut connection = connection.clone();
                async move {
                    let (key, value) = (key(caller), value());
                    for _ in 0..load.each {
                        match load.kind {
                            Kind::Get => {
                                let got: Vec<u8> = connection.get(&key).await.expect("a value");
                                assert_eq!(got.len(), VALUE_BYTES);
                            }
                            Kind::Set => {
                                connection.set::<_, _, ()>(&key, &value[..]).await.expect("it is set");
                            }
                        }
                    }
                }
            }
        };
        measure(load, calls).await
    })
}

fn on_tokio<T>(main: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(main)
}

/// Runs the callers of the warm-up, then those of the round.
async fn measure<C, F>(load: &Load, calls: impl Fn(Load) -> C) -> Sample
where
    C: Fn(usize) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    all(load.callers, calls(load.warm_up())).await;
    let before = Usage::own();
    all(load.callers, calls(*load)).await;
    before.sample(load.commands())
}

async fn all<F>(callers: usize, call: impl Fn(usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let tasks: Vec<_> = (0..callers).map(|caller| tokio::spawn(call(caller))).collect();
    for task in tasks {
        task.await.expect("the caller did not panic");
    }
}
