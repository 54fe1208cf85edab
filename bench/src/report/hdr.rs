//! The latencies by interval as an HdrHistogram log, as `HistogramLogProcessor` and its like read it: version 1.3,
//! histograms in V2 encoding, compressed. Values are nanoseconds; the column of maxima is in milliseconds, as in logs
//! that Java writes.

use std::io::{self, Write};
use std::time::SystemTime;

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError};

use super::intervals::History;

/// Nanoseconds per unit of the column of maxima.
const MAX_VALUE_DIVISOR: f64 = 1e6;

/// Writes the log; `start` is the begin of the first interval. All intervals together are the measured calls, each once.
///
/// # Errors
/// Those of `out`.
pub(super) fn write_log(history: &History, start: SystemTime, out: &mut impl Write) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(concat!("[Logged with mcp-bench ", env!("CARGO_PKG_VERSION"), "]"))
        .add_comment("[Histogram log format version 1.3]")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(MAX_VALUE_DIVISOR)
        .begin_log_with(out, &mut serializer)?;
    history.try_each(|from, length, histogram| {
        log.write_histogram(histogram, from, length, None).map_err(|e| match e {
            IntervalLogWriterError::IoError(e) => e,
            IntervalLogWriterError::SerializeError(e) => io::Error::other(e),
        })
    })
}
