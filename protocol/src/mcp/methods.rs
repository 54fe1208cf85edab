//! Owns the closed set of method names that any revision knows, as metric labels and array indices, and which of them may
//! be asked twice.

/// Every request and notification of every revision, sorted, and last the label of all others.
pub const METHOD_LABELS: &[&str] = &[
    "completion/complete",
    "elicitation/create",
    "initialize",
    "logging/setLevel",
    "notifications/cancelled",
    "notifications/elicitation/complete",
    "notifications/initialized",
    "notifications/message",
    "notifications/progress",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
    "notifications/resources/updated",
    "notifications/roots/list_changed",
    "notifications/subscriptions/acknowledged",
    "notifications/tasks/status",
    "notifications/tools/list_changed",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "roots/list",
    "sampling/createMessage",
    "server/discover",
    "subscriptions/listen",
    "tasks/cancel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tools/call",
    "tools/list",
    "other",
];

/// The index of the label of all unknown methods: the last one.
pub const OTHER_METHOD: usize = METHOD_LABELS.len() - 1;

/// The method itself when any revision knows it, else `other`.
pub fn method_label(method: &str) -> &'static str {
    METHOD_LABELS[method_index(method.as_bytes())]
}

/// The method's index in [`METHOD_LABELS`]; [`OTHER_METHOD`] when unknown.
pub fn method_index(method: &[u8]) -> usize {
    METHOD_LABELS[..OTHER_METHOD]
        .binary_search_by(|label| label.as_bytes().cmp(method))
        .unwrap_or(OTHER_METHOD)
}

/// Methods that ask for nothing but an answer: asking twice does no harm.
const REPEATABLE: &[&str] = &[
    "completion/complete",
    "initialize",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/templates/list",
    "server/discover",
    "tools/list",
];

/// Whether a request of this method may be sent again when nobody knows what became of it.
pub fn is_repeatable(method: &str) -> bool {
    REPEATABLE.contains(&method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_so_that_each_is_found() {
        assert!(METHOD_LABELS[..OTHER_METHOD].is_sorted());
        assert!(METHOD_LABELS.len() <= usize::from(u8::MAX));
        for (index, label) in METHOD_LABELS.iter().enumerate() {
            assert_eq!(method_index(label.as_bytes()), index);
            assert_eq!(method_label(label), *label);
        }
    }

    #[test]
    fn unknown_methods_share_one_label() {
        for unknown in ["", "tools/cal", "tools/calls", "Tools/call", "x/y", "zzz"] {
            assert_eq!(method_index(unknown.as_bytes()), OTHER_METHOD, "{unknown}");
            assert_eq!(method_label(unknown), "other");
        }
    }

    #[test]
    fn what_changes_something_is_not_repeatable() {
        for method in REPEATABLE {
            assert!(is_repeatable(method) && method_label(method) == *method, "{method}");
        }
        for method in ["tools/call", "tasks/cancel", "resources/subscribe", "logging/setLevel", "", "x"] {
            assert!(!is_repeatable(method), "{method}");
        }
    }
}
