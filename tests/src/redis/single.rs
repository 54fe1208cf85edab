//! Owns a Redis server that is alone.

use super::{Node, RedisOptions, Store};
use crate::{GatewayConfig, TempDir, TestCert};

/// One Redis server.
#[derive(Debug)]
pub struct Redis {
    /// The certificate and its authority, used where it was started with TLS.
    pub cert: TestCert,
    options: RedisOptions,
    nodes: [Node; 1],
    _dir: TempDir,
}

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// When it does not; the message has what it logged.
    #[must_use]
    pub fn start(options: &RedisOptions) -> Self {
        let dir = TempDir::new();
        let cert = TestCert::generate(&dir);
        let node = Node::start(options.spec("redis".to_owned(), &cert));
        Self { cert, options: options.clone(), nodes: [node], _dir: dir }
    }

    /// The server.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.nodes[0]
    }

    /// The server, for faults.
    #[must_use]
    pub fn node_mut(&mut self) -> &mut Node {
        &mut self.nodes[0]
    }
}

impl Store for Redis {
    fn configure(&self, config: GatewayConfig) -> GatewayConfig {
        let scheme = if self.options.tls { "rediss" } else { "redis" };
        let url = format!("url = \"{scheme}://{}/0\"", self.node().client_addr());
        self.options.configure(config.set("gateway.redis", &url), &self.cert)
    }

    fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    fn master_of(&self, _tag: &str) -> Option<usize> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::Resp;

    #[test]
    fn it_survives_a_kill_with_its_data_and_not_its_test() {
        let mut redis = Redis::start(&RedisOptions::new());
        let addr = redis.node().addr();
        redis.node().ask(&["SET", "k", "v"]);
        redis.node_mut().kill();
        assert!(!redis.node_mut().is_running());
        assert!(redis.node().try_ask(&["PING"]).is_err());
        redis.node_mut().restart();
        assert_eq!(redis.node().ask(&["GET", "k"]).text(), "v");
        redis.node_mut().pause();
        assert!(redis.node().try_ask(&["PING"]).is_err(), "a stopped process answers");
        redis.node_mut().resume();
        assert_eq!(redis.node().ask(&["PING"]).text(), "PONG");
        assert!(redis.node().log().contains("-- killed"));
        drop(redis);
        assert!(Resp::connect(addr).is_err(), "somebody still listens");
    }

    #[test]
    fn its_clients_can_be_thrown_out() {
        let redis = Redis::start(&RedisOptions::new());
        let mut client = redis.node().log_in().expect("a connection");
        assert_eq!(client.ask(&["PING"]).expect("an answer").text(), "PONG");
        redis.node().kill_clients();
        assert!(client.ask(&["PING"]).is_err());
    }

    #[test]
    fn passwords_users_and_limits_hold() {
        let redis = Redis::start(&RedisOptions::new().password("secret").line("maxmemory 1kb"));
        let stranger = Resp::connect(redis.node().addr()).and_then(|mut resp| resp.ask(&["GET", "k"]));
        assert!(stranger.expect("an answer").text().starts_with("NOAUTH"));
        let full = redis.node().try_ask(&["SET", "k", "v"]).expect("an answer");
        assert!(full.text().starts_with("OOM"), "{full:?}");

        let redis = Redis::start(&RedisOptions::new().user("gateway", "secret"));
        let mut resp = Resp::connect(redis.node().addr()).expect("connected");
        assert!(resp.ask(&["AUTH", "default", "secret"]).expect("an answer").text().starts_with("WRONGPASS"));
        assert_eq!(redis.node().ask(&["ACL", "WHOAMI"]).text(), "gateway");
    }

    #[test]
    fn tls_is_served_beside_the_plain_port() {
        let redis = Redis::start(&RedisOptions::new().tls());
        let addr = redis.node().client_addr();
        assert_ne!(addr, redis.node().addr());
        let mut tls = crate::tls::connect(addr, &redis.cert.client_config()).expect("a handshake");
        std::io::Write::write_all(&mut tls, b"PING\r\n").expect("sent");
        let mut answer = [0; 7];
        std::io::Read::read_exact(&mut tls, &mut answer).expect("an answer");
        assert_eq!(&answer, b"+PONG\r\n");
    }
}
