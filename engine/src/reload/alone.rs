//! A gateway without servers: owns the demo server that it then brings along. Never how that is reached.

use std::io;

use mcp_config::{Config, Endpoint, Reach, Transport, Upstream};

use crate::demo::{self, Demo};

/// The demo server, once it was needed.
#[derive(Default)]
pub(crate) struct Alone(Option<Demo>);

impl Alone {
    /// With no server configured, the gateway brings its own; says whether it does.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn fill(&mut self, config: &mut Config) -> io::Result<bool> {
        if !config.upstreams.is_empty() {
            return Ok(false);
        }
        if self.0.is_none() {
            self.0 = Some(demo::start()?);
        }
        let Some(demo) = &self.0 else { return Ok(false) };
        let endpoint = Endpoint {
            tls: false,
            host: demo.addr.ip().to_string(),
            port: demo.addr.port(),
            path: demo::PATH.to_owned(),
            text: format!("http://{}{}", demo.addr, demo::PATH),
        };
        config.upstreams.push(Upstream {
            name: "demo".to_owned(),
            transport: Transport::StreamableHttp { endpoints: vec![endpoint], tls: Default::default() },
            timeout: Upstream::DEFAULT_TIMEOUT,
            health: Default::default(),
            reach: Reach::default(),
        });
        Ok(true)
    }
}
