//! Owns what the MCP revisions say about messages and headers: revisions, methods, and the header/body rules of the
//! modern era (2026-07-28).
//!
//! It never routes and never answers; a broken rule is a [`ModernError`] that knows its JSON-RPC code and status.

pub mod correlate;
pub mod federation;
mod methods;
mod mirror;
mod modern;
mod param_headers;
mod result_meta;
mod revision;
mod tool_hints;
mod value;

pub use methods::{METHOD_LABELS, OTHER_METHOD, is_repeatable, method_index, method_label};
pub use mirror::{check_modern_body, write_mirrored, write_params};
pub use modern::{
    HEADER_MISMATCH, INVALID_PARAMS, MirroredHeaders, Mismatch, ModernError, UNSUPPORTED_VERSION,
    check_modern,
};
pub use param_headers::{ParamHeader, ToolHeaders, check_params, learn_from_tools_list};
pub use result_meta::with_result_meta;
pub use revision::Revision;
pub use tool_hints::for_each_tool_hint;
pub use value::{InvalidValue, decode_value, encode_value};
