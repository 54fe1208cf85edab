//! From the configuration to the store's client: owns the reading of passwords. It never shows one.

use std::path::{Path, PathBuf};

use mcp_config::{Config, Password, Redis, RedisAuth, RedisTopology};
use mcp_shard_store::redis::{Auth, Settings, Topology};
use mcp_shard_store::runtime::Address;

/// Longest password file, in bytes: one that is longer is another file.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("{table}.username is set, but no password: the environment variable {name} is not")]
    NoVariable { table: &'static str, name: String },
    #[error("{table}.username is set, but neither password_env nor password_file")]
    NoPassword { table: &'static str },
    #[error("{table}.password_file: {}: {error}", file.display())]
    File { table: &'static str, file: PathBuf, error: std::io::Error },
}

/// What to authenticate with. Its `Debug` shows users only.
#[derive(Debug)]
pub(crate) struct Secrets {
    nodes: Option<Auth>,
    sentinels: Option<Auth>,
}

impl Secrets {
    /// Reads the passwords that the configuration names.
    ///
    /// # Errors
    /// [`SecretError`].
    pub(crate) fn read(redis: &Redis) -> Result<Self, SecretError> {
        let sentinels = match &redis.topology {
            RedisTopology::Sentinel { auth: credentials, .. } => auth(credentials, "gateway.redis.sentinel")?,
            RedisTopology::Single { .. } | RedisTopology::Cluster { .. } => None,
        };
        Ok(Secrets { nodes: auth(&redis.auth, "gateway.redis.auth")?, sentinels })
    }
}

/// What the client is told; `tracked` is what its keys begin with that others change, empty where nobody keeps copies.
pub(crate) fn settings(config: &Config, redis: &Redis, secrets: &Secrets, tracked: &[u8]) -> Settings {
    let nodes = |addresses: &[String]| addresses.iter().filter_map(|text| address(text)).collect();
    let (topology, database) = match &redis.topology {
        RedisTopology::Single { url } => {
            let address = Address { host: url.host.as_str().into(), port: url.port };
            (Topology::Single(address), url.database)
        }
        RedisTopology::Sentinel { master, addresses, .. } => {
            let (sentinels, auth) = (nodes(addresses), secrets.sentinels.clone());
            (Topology::Sentinel { master: master.clone(), sentinels, auth }, 0)
        }
        RedisTopology::Cluster { addresses } => (Topology::Cluster(nodes(addresses)), 0),
    };
    let breaker = &config.circuit_breaker;
    Settings {
        auth: secrets.nodes.clone(),
        database,
        tls: redis.tls.enabled,
        tracked_prefix: tracked.to_vec(),
        command_timeout_ms: redis.command_timeout.as_millis() as u64,
        connect_timeout_ms: redis.connect_timeout.as_millis() as u64,
        failure_threshold: breaker.failure_threshold,
        success_threshold: breaker.success_threshold,
        ..Settings::new(topology)
    }
}

/// `host:port` as the configuration has checked it.
fn address(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some(Address { host: host.into(), port: port.parse().ok()? })
}

fn auth(auth: &RedisAuth, table: &'static str) -> Result<Option<Auth>, SecretError> {
    let password = match &auth.password {
        Password::Env(name) => match std::env::var(name) {
            Ok(password) if !password.is_empty() => password,
            _ if auth.username.is_some() => {
                return Err(SecretError::NoVariable { table, name: name.clone() });
            }
            _ => return Ok(None),
        },
        Password::File(file) => {
            read(file).map_err(|error| SecretError::File { table, file: file.clone(), error })?
        }
        Password::None if auth.username.is_some() => return Err(SecretError::NoPassword { table }),
        Password::None => return Ok(None),
    };
    Ok(Some(Auth { username: auth.username.clone(), password }))
}

/// The file's one line, without its end.
fn read(file: &Path) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind, Read};

    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_PASSWORD_BYTES + 1).read_to_string(&mut text)?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if text.len() as u64 > MAX_PASSWORD_BYTES {
        return Err(Error::new(ErrorKind::InvalidData, format!("longer than {MAX_PASSWORD_BYTES} bytes")));
    }
    if password.is_empty() || password.contains('\n') {
        return Err(Error::new(ErrorKind::InvalidData, "not one line with a password"));
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, SecretError> {
        let config = Config::load(Some(("test", text)), std::iter::empty()).unwrap();
        let redis = config.redis.as_ref().unwrap();
        Ok(settings(&config, redis, &Secrets::read(redis)?, b""))
    }

    fn address(host: &str, port: u16) -> Address {
        Address { host: host.into(), port }
    }

    #[test]
    fn every_topology_is_told_to_the_client() {
        let single = load("[gateway.redis]\nurl = 'redis://[::1]:7/3'\ncommand_timeout = '70ms'\n").unwrap();
        assert_eq!(single.topology, Topology::Single(address("::1", 7)));
        assert_eq!((single.database, single.command_timeout_ms, single.auth), (3, 70, None));
        let sentinel =
            load("[gateway.redis.sentinel]\nmaster = 'm'\naddresses = ['a:1', '[::1]:2']\n").unwrap();
        let sentinels = vec![address("a", 1), address("::1", 2)];
        assert_eq!(sentinel.topology, Topology::Sentinel { master: "m".to_owned(), sentinels, auth: None });
        let cluster = load("[gateway.redis.cluster]\naddresses = ['a:1']\n").unwrap();
        assert_eq!(cluster.topology, Topology::Cluster(vec![address("a", 1)]));
    }

    #[test]
    fn a_password_comes_from_where_it_is_and_a_user_without_one_is_an_error() {
        let with = |auth: &str| load(&format!("[gateway.redis]\nurl = 'redis://h'\nauth = {{ {auth} }}\n"));
        let unset = "MCP_TEST_A_VARIABLE_THAT_NOBODY_SETS";
        assert_eq!(with(&format!("password_env = '{unset}'")).unwrap().auth, None);
        let error = with(&format!("username = 'u', password_env = '{unset}'")).unwrap_err();
        assert!(error.to_string().contains(unset), "{error}");
        assert!(matches!(
            with("username = 'u', password_env = ''"),
            Err(SecretError::NoPassword { table: "gateway.redis.auth" })
        ));

        let file = std::env::temp_dir().join(format!("mcp-password-{}", std::process::id()));
        let from_file = || with(&format!("username = 'u', password_file = '{}'", file.display()));
        assert!(matches!(from_file(), Err(SecretError::File { .. })));
        for (text, password) in [
            ("hunter2\n", Some("hunter2")),
            ("hunter 2\r\n", Some("hunter 2")),
            ("hunter2", Some("hunter2")),
            ("\n", None),
            ("a\nb\n", None),
            (&"x".repeat(5000), None),
        ] {
            std::fs::write(&file, text).unwrap();
            let found = from_file();
            if let Err(error) = &found {
                assert!(!error.to_string().contains("hunter2"));
            }
            let auth = found.ok().and_then(|settings| settings.auth);
            assert_eq!(auth.as_ref().map(|auth| auth.password.as_str()), password, "{text:?}");
            assert!(!format!("{auth:?}").contains("hunter2"));
        }
        std::fs::remove_file(&file).unwrap();
    }
}
