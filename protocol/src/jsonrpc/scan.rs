//! Owns the single pass over a message or batch, and the rules of JSON-RPC 2.0 and MCP about what a message is.
//!
//! Invariant: the first broken rule is remembered and the text read on to its end, so that a text that is not JSON is
//! always told as such, and so that the error answer can carry an `id` that comes late.

use super::cursor::Cursor;
use super::fields::{ERROR, Field, META, PARAMS, RESULT, TOP, Table, find};
use super::string::char_count;
use super::{Kind, Payload, Scan, ScanError, ScanFailure, ScanLimits};
use crate::{Span, StrSpan};

type Result<T> = std::result::Result<T, ScanError>;

/// Scans one message or batch. White space around it is allowed.
///
/// # Errors
/// A text that is not JSON wins over a message that is not valid JSON-RPC; of several reasons of one class the first
/// counts.
pub fn scan(bytes: &[u8], limits: &ScanLimits) -> std::result::Result<Payload, ScanFailure> {
    let refused = |error| ScanFailure { error, id: None };
    if u32::try_from(bytes.len()).is_err() {
        return Err(refused(ScanError::TooLong { len: bytes.len() }));
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(refused(ScanError::NotUtf8 { offset: error.valid_up_to() }));
    }
    let mut cursor = Cursor::new(bytes, limits.max_depth);
    if cursor.peek().map_err(refused)? == b'[' {
        return scan_batch(&mut cursor, limits).map(Payload::Batch).map_err(refused);
    }
    let mut message = Message::new();
    let read = message.read(&mut cursor, limits).and_then(|()| cursor.finish());
    let id = message.answerable_id();
    read.and_then(|()| message.judge()).map(Payload::Single).map_err(|error| ScanFailure { error, id })
}

fn scan_batch(cursor: &mut Cursor<'_>, limits: &ScanLimits) -> Result<Vec<Scan>> {
    let mut scans = Vec::new();
    let mut refused = None;
    cursor.open()?;
    let mut seen = 0;
    while cursor.next_element(seen == 0)? {
        if seen == limits.max_batch {
            return Err(ScanError::BatchTooLarge { limit: limits.max_batch });
        }
        seen += 1;
        let mut message = Message::new();
        message.read(cursor, limits)?;
        match message.judge() {
            Ok(scan) => scans.push(scan),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    cursor.finish()?;
    match refused {
        Some(error) => Err(error),
        None if scans.is_empty() => Err(ScanError::EmptyBatch),
        None => Ok(scans),
    }
}

/// One message while it is read.
struct Message {
    start: usize,
    /// The first rule that is broken.
    refused: Option<ScanError>,
    /// The fields that have been seen, one bit each.
    seen: u32,
    id_is_null: bool,
    /// What has been found; the kind is known at the end.
    scan: Scan,
}

impl Message {
    fn new() -> Self {
        Self { start: 0, refused: None, seen: 0, id_is_null: false, scan: Scan::empty() }
    }

    /// Reads the message at the cursor. Fails only where the text is not JSON.
    fn read(&mut self, cursor: &mut Cursor<'_>, limits: &ScanLimits) -> Result<()> {
        let is_object = cursor.peek()? == b'{';
        self.start = cursor.pos();
        if !is_object {
            self.refuse(ScanError::NotAnObject { offset: self.start });
            cursor.skip_value()?;
            return Ok(());
        }
        cursor.open()?;
        let mut first = true;
        while let Some(key) = cursor.next_key(first)? {
            first = false;
            let field = self.claim(cursor, TOP, key);
            let byte = cursor.peek()?;
            let offset = cursor.pos();
            match field {
                Some(Field::Jsonrpc) => {
                    let version = string_or_skip(cursor)?;
                    if !version.is_some_and(|version| version.eq_str(cursor.bytes(), "2.0")) {
                        self.refuse(ScanError::WrongVersion { offset });
                    }
                }
                Some(Field::Id) => self.read_id(cursor, limits)?,
                Some(Field::Method) => match string_or_skip(cursor)? {
                    Some(method) if is_valid_method(cursor.bytes(), method, limits.max_method_len) => {
                        self.scan.method = Some(method);
                    }
                    Some(_) | None => self.refuse(ScanError::InvalidMethod { offset }),
                },
                Some(Field::Params) if byte == b'{' => {
                    self.scan.params = Some(self.read_object(cursor, PARAMS)?);
                }
                Some(Field::Params) => {
                    self.refuse(ScanError::InvalidParams { offset });
                    cursor.skip_value()?;
                }
                Some(Field::Result) if byte == b'{' => {
                    self.scan.result = Some(self.read_object(cursor, RESULT)?);
                }
                Some(Field::Result) => self.scan.result = Some(cursor.skip_value()?),
                Some(Field::Error) => {
                    self.scan.is_error = true;
                    if byte == b'{' {
                        self.read_object(cursor, ERROR)?;
                    } else {
                        self.refuse(ScanError::InvalidError { offset });
                        cursor.skip_value()?;
                    }
                }
                Some(_) | None => {
                    cursor.skip_value()?;
                }
            }
        }
        Ok(())
    }

    /// Reads a member object whose opening bracket is next. It calls itself once at most: only
    /// `PARAMS` leads to `META`, which leads nowhere.
    fn read_object(&mut self, cursor: &mut Cursor<'_>, table: Table) -> Result<Span> {
        let start = cursor.pos();
        cursor.open()?;
        let mut first = true;
        while let Some(key) = cursor.next_key(first)? {
            first = false;
            let field = self.claim(cursor, table, key);
            let byte = cursor.peek()?;
            match field {
                Some(Field::Name) => self.scan.name = string_or_skip(cursor)?,
                Some(Field::Uri) => self.scan.uri = string_or_skip(cursor)?,
                Some(Field::Cursor) => self.scan.cursor = string_or_skip(cursor)?,
                Some(Field::InitProtocolVersion) => {
                    self.scan.init_protocol_version = string_or_skip(cursor)?;
                }
                Some(Field::MetaProtocolVersion) => {
                    self.scan.meta_protocol_version = string_or_skip(cursor)?;
                }
                Some(Field::ResultProtocolVersion) => {
                    self.scan.result_protocol_version = string_or_skip(cursor)?;
                }
                Some(Field::Arguments) => self.scan.arguments = Some(cursor.skip_value()?),
                Some(Field::InitCapabilities) => self.scan.init_capabilities = Some(cursor.skip_value()?),
                Some(Field::InitClientInfo) => self.scan.init_client_info = Some(cursor.skip_value()?),
                Some(Field::RequestId) => self.scan.request_id = Some(cursor.skip_value()?),
                Some(Field::MetaClientInfo) => self.scan.meta_client_info = Some(cursor.skip_value()?),
                Some(Field::ProgressToken) => self.scan.progress_token = Some(cursor.skip_value()?),
                Some(Field::MetaClientCapabilities) => {
                    let value = cursor.skip_value()?;
                    self.scan.meta_client_capabilities = (byte == b'{').then_some(value);
                }
                Some(Field::Meta) if byte == b'{' => self.scan.meta = Some(self.read_object(cursor, META)?),
                Some(Field::Code) => {
                    let value = cursor.skip_value()?;
                    let text = std::str::from_utf8(value.of(cursor.bytes())).unwrap_or_default();
                    self.scan.error_code = text.parse().ok();
                }
                Some(_) | None => {
                    cursor.skip_value()?;
                }
            }
        }
        Ok(Span::new(start, cursor.pos()))
    }

    fn read_id(&mut self, cursor: &mut Cursor<'_>, limits: &ScanLimits) -> Result<()> {
        let byte = cursor.peek()?;
        let start = cursor.pos();
        let valid = match byte {
            b'"' => {
                let id = cursor.string()?;
                fits(id.span.of(cursor.bytes()), limits.max_id_len)
            }
            b'-' | b'0'..=b'9' => {
                let (id, is_integer) = cursor.number()?;
                is_integer && id.len() <= limits.max_id_len
            }
            b'n' => {
                cursor.skip_value()?;
                self.id_is_null = true;
                return Ok(());
            }
            _ => {
                cursor.skip_value()?;
                false
            }
        };
        if valid {
            self.scan.id = Some(Span::new(start, cursor.pos()));
        } else {
            self.refuse(ScanError::InvalidId { offset: start });
        }
        Ok(())
    }

    /// The field that `key` names, when it stands here for the first time.
    fn claim(&mut self, cursor: &Cursor<'_>, table: Table, key: StrSpan) -> Option<Field> {
        let (name, field) = find(table, cursor.bytes(), key)?;
        if self.has(field) {
            self.refuse(ScanError::DuplicateKey { key: name, offset: key.span.start as usize });
            if field == Field::Id {
                self.scan.id = None;
            }
            return None;
        }
        self.seen |= 1 << field as u32;
        Some(field)
    }

    fn has(&self, field: Field) -> bool {
        self.seen >> field as u32 & 1 == 1
    }

    fn refuse(&mut self, error: ScanError) {
        self.refused.get_or_insert(error);
    }

    /// The `id` for an error answer. A response is never answered.
    fn answerable_id(&self) -> Option<Span> {
        let is_response = self.has(Field::Result) || self.has(Field::Error);
        self.scan.id.filter(|_| !is_response)
    }

    /// Decides what the message is.
    fn judge(mut self) -> Result<Scan> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        let offset = self.start;
        if !self.has(Field::Jsonrpc) {
            return Err(ScanError::WrongVersion { offset });
        }
        let has_id = self.scan.id.is_some();
        self.scan.kind = match (self.has(Field::Method), self.has(Field::Result), self.has(Field::Error)) {
            (true, false, false) if has_id => Kind::Request,
            (true, false, false) if self.id_is_null => return Err(ScanError::InvalidId { offset }),
            (true, false, false) => Kind::Notification,
            (true, _, _) => return Err(ScanError::BothMethodAndResult { offset }),
            (false, true, true) => return Err(ScanError::BothResultAndError { offset }),
            (false, true, false) if !has_id => return Err(ScanError::InvalidId { offset }),
            (false, true, false) | (false, false, true) => Kind::Response,
            (false, false, false) => return Err(ScanError::NoMethodNorResult { offset }),
        };
        Ok(self.scan)
    }
}

fn string_or_skip(cursor: &mut Cursor<'_>) -> Result<Option<StrSpan>> {
    if cursor.peek()? == b'"' {
        return cursor.string().map(Some);
    }
    cursor.skip_value()?;
    Ok(None)
}

/// Whether string contents have at most `limit` characters.
fn fits(raw: &[u8], limit: usize) -> bool {
    /// The longest way to write a character: two escaped surrogates.
    const MAX_BYTES_PER_CHAR: usize = 12;
    raw.len() <= limit || (raw.len() <= limit.saturating_mul(MAX_BYTES_PER_CHAR) && char_count(raw) <= limit)
}

fn is_valid_method(bytes: &[u8], method: StrSpan, limit: usize) -> bool {
    let raw = method.span.of(bytes);
    if raw.is_empty() || !fits(raw, limit) {
        return false;
    }
    let plain = !method.escaped && raw.iter().all(u8::is_ascii_graphic);
    plain || method.decode(bytes).chars().all(|c| !c.is_control() && !c.is_whitespace())
}
