//! Where the configuration comes from: owns the file's path and the reading of it with the environment over it. Never what is
//! done with it.

use std::path::PathBuf;

use mcp_config::Config;

/// A configuration's origin.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// `None`: the embedded defaults.
    pub(crate) file: Option<PathBuf>,
}

impl Source {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// All that is wrong, one line each.
    pub(crate) fn read(&self) -> Result<Config, String> {
        let text = match &self.file {
            None => None,
            Some(file) => {
                let text =
                    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
                Some((file.display().to_string(), text))
            }
        };
        let environment = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        let source = text.as_ref().map(|(origin, text)| (origin.as_str(), text.as_str()));
        Config::load(source, environment).map_err(|errors| errors.to_string())
    }
}
