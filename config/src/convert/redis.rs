//! `gateway.redis`: from the file's shape to the runtime's.
//!
//! Owns the rules that span its keys. It never reads a password.

use crate::address;
use crate::limits::{MAX_ADDRESSES, STORE_TIMEOUT_MS};
use crate::reader::Reader;
use crate::types::{Password, Redis, RedisAuth, RedisTls, RedisTopology};

/// Longest name of an environment variable, in bytes.
const MAX_ENV_NAME_BYTES: usize = 128;

/// The store that `gateway.redis` describes, if it is there.
pub(super) fn redis(reader: &mut Reader<'_>) -> Option<Redis> {
    if !reader.has_section("gateway.redis") {
        return None;
    }
    let topology = redis_topology(reader);
    let tls = redis_tls(reader, topology.as_ref());
    let auth = redis_auth(reader, "gateway.redis.auth", RedisAuth::default());
    let mut timeout =
        |name: &str, default| reader.duration(&format!("gateway.redis.{name}"), default, &STORE_TIMEOUT_MS);
    let command_timeout = timeout("command_timeout", Redis::DEFAULT_COMMAND_TIMEOUT);
    let connect_timeout = timeout("connect_timeout", Redis::DEFAULT_CONNECT_TIMEOUT);
    topology.map(|topology| Redis { topology, tls, auth, command_timeout, connect_timeout })
}

/// The one topology that is given; a problem unless it is exactly one.
fn redis_topology(reader: &mut Reader<'_>) -> Option<RedisTopology> {
    const NODE: &str = "a host and a port such as \"127.0.0.1:7000\"";
    let url_allowed = || {
        "a URL such as \"redis://127.0.0.1:6379/0\" or \"rediss://…\" without user and password, which belong to \
         gateway.redis.auth"
            .to_owned()
    };
    let nodes = |reader: &mut Reader<'_>, key: &str| {
        reader.require(key, &format!("a list of 1 to {MAX_ADDRESSES} different items, each {NODE}"));
        reader.list(key, (1, MAX_ADDRESSES), NODE, address::node)
    };
    let mut given = Vec::new();
    if reader.has("gateway.redis.url") {
        let url = reader
            .read("gateway.redis.url", None, url_allowed, |raw| address::redis_url(raw.text()?).map(Some));
        given.push(("gateway.redis.url", url.map(|url| RedisTopology::Single { url })));
    }
    if reader.has_section("gateway.redis.sentinel") {
        let master_key = "gateway.redis.sentinel.master";
        let master_allowed = "the master's name at the Sentinels, 1 to 255 visible ASCII characters";
        reader.require(master_key, master_allowed);
        let master = reader.read(
            master_key,
            String::new(),
            || master_allowed.to_owned(),
            |raw| {
                let name = raw.text()?;
                let valid =
                    (1..=255).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
                valid.then(|| name.to_owned())
            },
        );
        let addresses = nodes(reader, "gateway.redis.sentinel.addresses");
        let none = RedisAuth { username: None, password: Password::None };
        let auth = redis_auth(reader, "gateway.redis.sentinel", none);
        given.push(("gateway.redis.sentinel", Some(RedisTopology::Sentinel { master, addresses, auth })));
    }
    let cluster = reader.has_section("gateway.redis.cluster");
    if cluster && reader.bool("gateway.redis.cluster.enabled", true) {
        let addresses = nodes(reader, "gateway.redis.cluster.addresses");
        given.push(("gateway.redis.cluster", Some(RedisTopology::Cluster { addresses })));
    }
    match given.len() {
        1 => given.pop().and_then(|(_, topology)| topology),
        0 => {
            reader
                .refuse("gateway.redis.url", "set, or else gateway.redis.sentinel or gateway.redis.cluster");
            None
        }
        _ => {
            let keys: Vec<_> = given.iter().map(|(key, _)| *key).collect();
            reader.refuse(
                "gateway.redis",
                format!("one of url, sentinel and cluster, not {}", keys.join(" and ")),
            );
            None
        }
    }
}

fn redis_tls(reader: &mut Reader<'_>, topology: Option<&RedisTopology>) -> RedisTls {
    let implied = matches!(topology, Some(RedisTopology::Single { url }) if url.tls);
    let enabled = reader.bool("gateway.redis.tls.enabled", false) || implied;
    let tls = RedisTls {
        enabled,
        skip_verify: reader.bool("gateway.redis.tls.skip_verify", false),
        ca_file: reader.path("gateway.redis.tls.ca_file"),
        server_name: reader.server_name("gateway.redis.tls.server_name"),
    };
    if !enabled && topology.is_some() {
        let given = [("ca_file", tls.ca_file.is_some()), ("server_name", tls.server_name.is_some())];
        for (name, _) in given.into_iter().filter(|(_, given)| *given) {
            let allowed = "absent while gateway.redis.tls.enabled is false: nothing would be encrypted";
            reader.refuse(&format!("gateway.redis.tls.{name}"), allowed);
        }
    }
    tls
}

/// User and password under the keys of `table`; a password comes from one place.
fn redis_auth(reader: &mut Reader<'_>, table: &str, default: RedisAuth) -> RedisAuth {
    let key = |name: &str| format!("{table}.{name}");
    let username =
        || "at most 255 characters without control characters, or \"\" for the default user".to_owned();
    let password_env = || {
        format!(
            "the name of the environment variable that holds the password ([A-Za-z_][A-Za-z0-9_]*, at most \
             {MAX_ENV_NAME_BYTES} bytes), or \"\" for no password"
        )
    };
    let username = reader.read(&key("username"), default.username, username, |raw| {
        let name = raw.text()?;
        let valid = name.chars().count() <= 255 && !name.contains(char::is_control);
        valid.then(|| (!name.is_empty()).then(|| name.to_owned()))
    });
    let env = reader.read(&key("password_env"), None, password_env, |raw| {
        let name = raw.text()?;
        let valid = name.len() <= MAX_ENV_NAME_BYTES
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        valid.then(|| Some(name.to_owned()))
    });
    let file = reader.path(&key("password_file"));
    let password = match (env, file) {
        (Some(env), Some(_)) if !env.is_empty() => {
            reader.refuse(&key("password_file"), "absent, because password_env is set: one of the two");
            default.password
        }
        (_, Some(file)) => Password::File(file),
        (Some(env), None) if env.is_empty() => Password::None,
        (Some(env), None) => Password::Env(env),
        (None, None) => default.password,
    };
    RedisAuth { username, password }
}
