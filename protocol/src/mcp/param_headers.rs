//! Owns `Mcp-Param-*`: which headers a tool asks for, and whether a call's headers mirror its arguments.

use super::ModernError;

/// The headers that one tool's `inputSchema` asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToolHeaders {
    /// The tool's name.
    pub tool: String,
    /// Its annotated parameters.
    pub params: Vec<ParamHeader>,
}

/// One annotated parameter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParamHeader {
    /// The `{Name}` of `Mcp-Param-{Name}`.
    pub header: String,
    /// The keys that lead from `arguments` to the value.
    pub path: Vec<String>,
}

/// The tools of a `tools/list` response that ask for headers. Tools without annotations have no entry, nor have tools
/// with an invalid one (clients must not offer those).
pub fn learn_from_tools_list(result_message: &[u8]) -> Vec<ToolHeaders> {
    let _ = result_message;
    unimplemented!()
}

/// Checks a call's headers against its arguments. `headers` are all header lines of the request, `arguments` is the raw
/// `params.arguments`. Headers that the tool does not ask for are ignored.
///
/// # Errors
/// [`ModernError::HeaderMismatch`] for the first parameter whose header is absent, unexpected, repeated or different.
pub fn check_params<'a>(
    tool: &ToolHeaders,
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    arguments: Option<&[u8]>,
) -> Result<(), ModernError> {
    let _ = (tool, headers, arguments);
    unimplemented!()
}
