//! Policy: owns decisions about who may ask for what, as functions of a request and the configuration. Never IO.

pub(crate) mod admission;
pub(crate) mod overload;
