//! Owns random JSON-RPC messages in every spelling that JSON allows. It never makes one that the gateway has to refuse: no key
//! stands twice in an object that decides anything, and nesting stays shallow.

use std::time::SystemTime;

/// The deepest nesting of a generated value.
const MAX_DEPTH: usize = 6;
/// One in so many strings is long.
const LONG_STRINGS: usize = 1000;
/// How often a long string repeats a short one, at most.
const MAX_REPEATS: usize = 10_000;

/// A small generator of random numbers (splitmix64); equal seeds give equal messages.
#[derive(Debug, Clone)]
pub struct Random(u64);

/// How a message is spelled.
#[derive(Debug, Clone)]
pub struct Style {
    spaces: bool,
    line_ends: bool,
    escapes: bool,
    unknown: bool,
}

impl Random {
    /// Seeded by the variable `SEED`, or by the clock; the seed is printed, and seen where the test fails.
    #[must_use]
    pub fn seeded() -> Self {
        let clock = || SystemTime::UNIX_EPOCH.elapsed().map_or(1, |age| age.subsec_nanos().into());
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(clock);
        eprintln!("SEED={seed}");
        Self(seed)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    /// Cuts bytes into pieces of random sizes, none empty.
    pub fn split<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let most = bytes.len() / (1 + self.below(8)) + 1;
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(1 + self.below(most.min(bytes.len())));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }

    /// A request's id, as JSON.
    pub fn id(&mut self) -> String {
        match self.below(4) {
            0 => format!("{}", self.next() >> 12),
            1 => format!("-{}", self.below(1000)),
            2 => "\"\"".to_owned(),
            _ => self.short_string(&Style { escapes: true, ..Style::plain() }),
        }
    }

    /// A request of 2026-07-28 that calls the tool `any`, or whatever `method` is.
    pub fn modern_request(&mut self, style: &Style, id: &str, method: &str) -> String {
        let version = "\"io.modelcontextprotocol/protocolVersion\"".to_owned();
        let capabilities = "\"io.modelcontextprotocol/clientCapabilities\"".to_owned();
        let mut meta = vec![(version, "\"2026-07-28\"".to_owned()), (capabilities, self.object(style, 3))];
        self.add_unknown(style, &mut meta, 3);
        let meta = self.spell(style, meta);
        let mut params = vec![("\"_meta\"".to_owned(), meta), ("\"name\"".to_owned(), "\"any\"".to_owned())];
        params.push(("\"arguments\"".to_owned(), self.object(style, 0)));
        self.add_unknown(style, &mut params, 2);
        let params = self.spell(style, params);
        self.request(style, id, method, &params)
    }

    /// A request with these parts, each JSON already.
    pub fn request(&mut self, style: &Style, id: &str, method: &str, params: &str) -> String {
        let mut members = vec![
            ("\"jsonrpc\"".to_owned(), "\"2.0\"".to_owned()),
            ("\"id\"".to_owned(), id.to_owned()),
            ("\"method\"".to_owned(), self.spell_text(style, method)),
            ("\"params\"".to_owned(), params.to_owned()),
        ];
        self.add_unknown(style, &mut members, 2);
        let space = self.space(style);
        format!("{space}{}{}", self.spell(style, members), self.space(style))
    }

    /// An event with a notification; every line end, field order and comment that the standard allows but a lone carriage
    /// return.
    pub fn event(&mut self, number: usize) -> String {
        let end = ["\n", "\r\n"][self.below(2)];
        let data = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\",\"params\":{{\"n\":{number},\"v\":{}}}}}",
            self.value(&Style { escapes: true, ..Style::plain() }, 2)
        );
        let mut lines = vec![format!("data:{}{data}", ["", " "][self.below(2)])];
        for line in [
            format!("id: {number}"),
            "event: message".to_owned(),
            ": ä comment".to_owned(),
            "retry:10".to_owned(),
        ] {
            if self.below(2) == 0 {
                let at = self.below(lines.len() + 1);
                lines.insert(at, line);
            }
        }
        lines.iter().map(|line| format!("{line}{end}")).collect::<String>() + end
    }

    /// A JSON object.
    pub fn object(&mut self, style: &Style, depth: usize) -> String {
        let count = self.below(5);
        let members =
            (0..count).map(|number| (format!("\"k{number}\""), self.value(style, depth + 1))).collect();
        self.spell(style, members)
    }

    fn value(&mut self, style: &Style, depth: usize) -> String {
        match self.below(if depth < MAX_DEPTH { 7 } else { 5 }) {
            0 => self.number(),
            1 | 2 => self.string(style),
            3 => ["true", "false", "null"][self.below(3)].to_owned(),
            4 => ["[]", "{}", "\"\"", "0"][self.below(4)].to_owned(),
            5 => self.object(style, depth),
            _ => {
                let items: Vec<String> = (0..self.below(4)).map(|_| self.value(style, depth + 1)).collect();
                let space = self.space(style);
                format!("[{space}{}{space}]", items.join(&format!("{space},")))
            }
        }
    }

    /// Numbers that a reader of doubles would change.
    fn number(&mut self) -> String {
        let odd = [
            "-0",
            "-0.0",
            "1.0",
            "1e2",
            "1E+2",
            "1e-2",
            "1.10",
            "0.1e0",
            "123456789012345678901234567890",
            "1e400",
            "-1E-400",
            "9007199254740993",
            "3.141592653589793238462643383279",
            "4.2e1",
        ];
        match self.below(3) {
            0 => odd[self.below(odd.len())].to_owned(),
            1 => format!("{}.{}e{}", self.below(100), self.next(), self.below(300)),
            _ => self.next().to_string(),
        }
    }

    fn string(&mut self, style: &Style) -> String {
        if self.below(LONG_STRINGS) > 0 {
            return self.short_string(style);
        }
        let short = self.short_string(style);
        format!("\"{}\"", short[1..short.len() - 1].repeat(self.below(MAX_REPEATS)))
    }

    fn short_string(&mut self, style: &Style) -> String {
        let raw =
            ["", "a", " ", "é", "世界", "\u{1f600}", "\u{7f}", "'", "/", "\u{2028}", "</script>", "data: x"];
        let escaped = [
            "\\n",
            "\\r\\n",
            "\\\"",
            "\\\\",
            "\\/",
            "\\u0000",
            "\\u00e9",
            "\\uD83D\\ude00",
            "\\u0041",
            "\\b\\f\\t",
        ];
        let mut text = String::new();
        for _ in 0..self.below(8) {
            text += if style.escapes && self.below(2) == 0 {
                escaped[self.below(escaped.len())]
            } else {
                raw[self.below(raw.len())]
            };
        }
        format!("\"{text}\"")
    }

    /// A string that must mean `text`, some of its letters as escapes.
    fn spell_text(&mut self, style: &Style, text: &str) -> String {
        let letters: String = text
            .chars()
            .map(|c| {
                if style.escapes && self.below(4) == 0 {
                    format!("\\u{:04x}", u32::from(c))
                } else {
                    c.to_string()
                }
            })
            .collect();
        format!("\"{letters}\"")
    }

    fn add_unknown(&mut self, style: &Style, members: &mut Vec<(String, String)>, depth: usize) {
        if !style.unknown {
            return;
        }
        for number in 0..self.below(3) {
            let key = [format!("\"x-{number}\""), format!("\"\\u0078{number}\""), format!("\"世{number}\"")];
            members.push((key[self.below(3)].clone(), self.value(style, depth)));
        }
    }

    /// Writes members in random order.
    fn spell(&mut self, style: &Style, mut members: Vec<(String, String)>) -> String {
        let mut text = format!("{{{}", self.space(style));
        while !members.is_empty() {
            let (key, value) = members.swap_remove(self.below(members.len()));
            let comma = if members.is_empty() { "" } else { "," };
            for part in [&key, ":", &value, comma] {
                text += part;
                text += &self.space(style);
            }
        }
        text + "}"
    }

    fn space(&mut self, style: &Style) -> String {
        if !style.spaces {
            return String::new();
        }
        let kinds = if style.line_ends { " \t\n\r" } else { " \t" };
        (0..self.below(3)).filter_map(|_| kinds.chars().nth(self.below(kinds.len()))).collect()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Style {
    /// A style by chance.
    #[must_use]
    pub fn any(random: &mut Random) -> Self {
        let mut coin = || random.below(2) == 0;
        Self { spaces: coin(), line_ends: coin(), escapes: coin(), unknown: coin() }
    }

    fn plain() -> Self {
        Self { spaces: false, line_ends: false, escapes: false, unknown: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_generated_is_json() {
        let mut random = Random(7);
        let mut spellings = std::collections::BTreeSet::new();
        for _ in 0..500 {
            let style = Style::any(&mut random);
            let id = random.id();
            let text = random.modern_request(&style, &id, "tools/call");
            // Checks the syntax and converts nothing: there are numbers beyond a double's range.
            let raw: &serde_json::value::RawValue = serde_json::from_str(&text).unwrap();
            assert_eq!(raw.get(), text.trim_matches([' ', '\t', '\n', '\r']));
            spellings.insert(text);
        }
        assert!(spellings.len() > 490, "only {} different messages", spellings.len());
        let pieces = random.split(b"hello, world");
        assert_eq!(pieces.concat(), b"hello, world");
    }
}
