//! Why a store did not do what it was asked: owns the errors' types, sorted by whose fault it is and by whether asking again
//! is safe. Never a secret: no key, no value and no credential is part of an error.

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The caller asked for more than it may have.
    Caller,
    /// The store, or the way to it.
    Store,
    /// How the store is configured, here or there: somebody has to change something.
    Operator,
    /// This process.
    Gateway,
}

/// Whether the same question may be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing was changed: yes, a little later.
    Safe,
    /// The change may have been made or not: only by whoever knows that making it twice does no harm.
    Unknown,
    /// It would fail again.
    Useless,
}

/// What is known of a change that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not made, or none was asked for.
    None,
    /// It may have been made.
    Unknown,
}

/// What Redis answered instead of doing as it was told; the first word of its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerCode {
    /// `READONLY`: a replica, or a master that was demoted.
    ReadOnly,
    /// `OOM`: more than `maxmemory`.
    OutOfMemory,
    /// `NOAUTH`, `WRONGPASS`: no password or a wrong one.
    Auth,
    /// `NOPERM`: the user may not do this.
    Permission,
    /// `NOSCRIPT`: the script is not loaded.
    NoScript,
    /// `CLUSTERDOWN`: the slot has no master.
    ClusterDown,
    /// `LOADING`: the data set is being read.
    Loading,
    /// `MASTERDOWN`: a replica without a master.
    MasterDown,
    /// `TRYAGAIN`: the slot's keys are between two nodes.
    TryAgain,
    /// `MOVED` or `ASK` that led nowhere.
    Redirect,
    /// `BUSY`: a script runs for too long.
    Busy,
    /// `MISCONF`, `NOREPLICAS`: writes are refused until the operator sees to it.
    Misconfigured,
    /// Anything else.
    Other,
}

impl ServerCode {
    /// The code that an error's text begins with.
    pub fn of(text: &str) -> Self {
        match text.split(' ').next().unwrap_or_default() {
            "READONLY" => ServerCode::ReadOnly,
            "OOM" => ServerCode::OutOfMemory,
            "NOAUTH" | "WRONGPASS" => ServerCode::Auth,
            "NOPERM" => ServerCode::Permission,
            "NOSCRIPT" => ServerCode::NoScript,
            "CLUSTERDOWN" => ServerCode::ClusterDown,
            "LOADING" => ServerCode::Loading,
            "MASTERDOWN" => ServerCode::MasterDown,
            "TRYAGAIN" => ServerCode::TryAgain,
            "MOVED" | "ASK" => ServerCode::Redirect,
            "BUSY" => ServerCode::Busy,
            "MISCONF" | "NOREPLICAS" => ServerCode::Misconfigured,
            _ => ServerCode::Other,
        }
    }
}

/// Why the store did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store holds as many sessions as it may.
    #[error("the store holds {limit} sessions, as many as it may")]
    Full {
        /// The limit of this partition.
        limit: usize,
    },
    /// As many questions wait as may; nothing was sent.
    #[error("the store's queue is full")]
    Busy,
    /// The system gave no random bytes for a session id.
    #[error("no random bytes for a session id")]
    NoRandom,
    /// No node that could answer is connected, or the breaker is open; nothing was sent.
    #[error("the store cannot be reached")]
    Unreachable,
    /// No answer within the command's deadline.
    #[error("the store did not answer in time")]
    Timeout(Change),
    /// The connection broke before the answer.
    #[error("the connection to the store broke")]
    Lost(Change),
    /// Redis refused; nothing was changed.
    #[error("the store refused: {text}")]
    Refused {
        /// Its code.
        code: ServerCode,
        /// Its own words.
        text: Box<str>,
    },
    /// An answer that is no answer to this command, or no RESP at all, or too large.
    #[error("the store answered with {0}")]
    Malformed(&'static str),
    /// The change was made, but fewer replicas than demanded have it.
    #[error("{acknowledged} of {wanted} replicas have the change")]
    NotReplicated {
        /// Replicas that have it.
        acknowledged: u32,
        /// Replicas that were to have it.
        wanted: u32,
    },
}

impl StoreError {
    /// What Redis said, as an error.
    pub fn refused(text: &str) -> Self {
        StoreError::Refused { code: ServerCode::of(text), text: text.into() }
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            StoreError::Full { .. } => Blame::Caller,
            StoreError::Busy | StoreError::NoRandom => Blame::Gateway,
            StoreError::Unreachable
            | StoreError::Timeout(_)
            | StoreError::Lost(_)
            | StoreError::Malformed(_)
            | StoreError::NotReplicated { .. } => Blame::Store,
            StoreError::Refused { code, .. } => match code {
                ServerCode::Auth | ServerCode::Permission | ServerCode::OutOfMemory => Blame::Operator,
                ServerCode::Misconfigured => Blame::Operator,
                ServerCode::NoScript | ServerCode::Other => Blame::Gateway,
                ServerCode::ReadOnly
                | ServerCode::ClusterDown
                | ServerCode::Loading
                | ServerCode::MasterDown
                | ServerCode::TryAgain
                | ServerCode::Redirect
                | ServerCode::Busy => Blame::Store,
            },
        }
    }

    /// Whether asking again is safe.
    pub fn retry(&self) -> Retry {
        match self {
            StoreError::Busy | StoreError::Unreachable | StoreError::NoRandom => Retry::Safe,
            StoreError::Timeout(Change::None) | StoreError::Lost(Change::None) => Retry::Safe,
            StoreError::Timeout(Change::Unknown) | StoreError::Lost(Change::Unknown) => Retry::Unknown,
            StoreError::NotReplicated { .. } => Retry::Unknown,
            StoreError::Full { .. } | StoreError::Malformed(_) => Retry::Useless,
            StoreError::Refused { code: ServerCode::Other, .. } => Retry::Useless,
            StoreError::Refused { .. } => Retry::Safe,
        }
    }

    /// A store's failure rather than a caller's: what a breaker counts, and what a copy in the cache may stand in for.
    pub fn is_outage(&self) -> bool {
        !matches!(
            self,
            StoreError::Full { .. }
                | StoreError::Busy
                | StoreError::NoRandom
                | StoreError::Refused { code: ServerCode::NoScript | ServerCode::Other, .. }
        )
    }

    /// The `result` label of a metric.
    pub fn label(&self) -> &'static str {
        match self {
            StoreError::Full { .. } => "full",
            StoreError::Busy => "busy",
            StoreError::NoRandom => "no_random",
            StoreError::Unreachable => "unreachable",
            StoreError::Timeout(_) => "timeout",
            StoreError::Lost(_) => "lost",
            StoreError::Refused { .. } => "refused",
            StoreError::Malformed(_) => "malformed",
            StoreError::NotReplicated { .. } => "not_replicated",
        }
    }
}
