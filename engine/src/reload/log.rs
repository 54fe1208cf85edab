//! The log: owns its start and its level, which changes while the gateway serves. Never a line of it.

use mcp_config::{Level, Log, LogFormat};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload::{Handle, Layer};
use tracing_subscriber::{Registry, fmt, registry};

/// The way to the log's level.
pub(crate) struct LogLevel(Handle<LevelFilter, Registry>);

impl LogLevel {
    /// Starts the process's log on standard error.
    pub(crate) fn start(config: &Log) -> Self {
        let (level, handle) = Layer::new(filter(config.level));
        let log = registry().with(level);
        let lines = fmt::layer().with_writer(std::io::stderr);
        match config.format {
            LogFormat::Json => log.with(lines.json()).init(),
            LogFormat::Text => log.with(lines.with_ansi(false)).init(),
        }
        LogLevel(handle)
    }

    /// Says so much from now on.
    pub(crate) fn set(&self, level: Level) {
        // The log lives as long as the process.
        let _ = self.0.reload(filter(level));
    }
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Trace => LevelFilter::TRACE,
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    }
}
