//! Claim: of a configuration that is read while another one runs, what can change changes, and what cannot is named and stays.

#![allow(clippy::unwrap_used, reason = "in a test a failure is the message")]

mod common;

use common::{EXAMPLE, load, rich_files};
use mcp_config::{Config, Difference};

fn keys(differences: &[Difference]) -> Vec<&str> {
    differences.iter().map(|difference| difference.key.as_str()).collect()
}

#[test]
fn the_same_configuration_changes_nothing() {
    for file in rich_files().iter().map(String::as_str).chain([EXAMPLE, ""]) {
        let config = load(file).unwrap();
        let reload = config.reload(&config).unwrap();
        assert_eq!((reload.config, reload.changed, reload.pending), (config, vec![], vec![]));
    }
}

#[test]
fn what_needs_a_restart_is_named_with_both_values_and_stays() {
    let running = load("gateway.server = { https_port = 1, max_body = '1KiB' }").unwrap();
    let wanted = load(
        "gateway.server = { https_port = 2, max_body = '2KiB' }\n[gateway.redis]\nurl = 'redis://h'\nauth.password_env = 'P'",
    )
    .unwrap();
    let reload = running.reload(&wanted).unwrap();
    assert_eq!(reload.config.server.https_port, 1);
    assert_eq!(reload.config.server.max_body_bytes, 2048);
    assert_eq!(reload.config.redis, None);
    let [body] = reload.changed.as_slice() else { panic!("{:?}", reload.changed) };
    assert_eq!(
        (&*body.key, &*body.running, &*body.wanted),
        ("gateway.server.max_body", "\"1KiB\"", "\"2KiB\"")
    );
    assert!(keys(&reload.pending).contains(&"gateway.redis.url"), "{:?}", reload.pending);
    let port = reload.pending.iter().find(|pending| pending.key == "gateway.server.https_port").unwrap();
    assert_eq!((&*port.running, &*port.wanted), ("1", "2"));
    let password = reload.pending.iter().find(|pending| pending.key.ends_with("auth.password_env")).unwrap();
    assert_eq!((&*password.running, &*password.wanted), ("", "<hidden>"));

    // And back: what was never there stays away, what is there is not lost.
    let back = wanted.reload(&running).unwrap();
    assert_eq!((back.config.redis, back.config.server.https_port), (wanted.redis, 2));
}

#[test]
fn every_key_of_the_gateway_changes_or_is_named() {
    for file in rich_files() {
        let (running, wanted) = (Config::default(), load(&file).unwrap());
        let reload = running.reload(&wanted).unwrap();
        assert_eq!(reload.config.upstreams, wanted.upstreams);
        // What ran and what was taken over differ in what was said to have changed, what waits is the rest.
        let again = reload.config.reload(&wanted).unwrap();
        assert_eq!((again.changed, keys(&again.pending)), (vec![], keys(&reload.pending)));
        let before = running.reload(&reload.config).unwrap();
        assert_eq!((keys(&before.changed), before.pending), (keys(&reload.changed), vec![]));
    }
}
