//! Endpoint addresses: owns the look-up of host names, on a thread of its own that follows the records' time to live. A
//! shard only reads the latest answer and never waits for one.
//!
//! What was found stays in use while nothing newer is known: a name server that is down, or one that says that a name has no
//! addresses, takes no server away.

mod dns;
pub(crate) mod sites;

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::{AbortHandle, AbortRegistration, Abortable, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use mcp_config::{Discovery, Dns, Endpoint};
use tokio::sync::mpsc;

use dns::Lookup;
use sites::{Directory, Found, Sites};

/// How long whoever needs names waits for them; what is not known by then is looked up in the background.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// How soon a look-up that failed is made again.
const AGAIN: Duration = Duration::from_secs(5);
/// Batches that wait for the thread: there is one at a time, whose sender waits for its first answers.
const BATCHES: usize = 16;

/// Has names looked up, and keeps them so in the background while somebody needs them. Its thread begins with the first name.
pub(crate) struct Resolver {
    dns: Dns,
    thread: Option<mpsc::Sender<Vec<Job>>>,
}

/// Servers whose names are to be looked up together.
#[derive(Default)]
pub(crate) struct Batch(Vec<Entry>);

struct Entry {
    directory: Directory,
    names: Vec<Name>,
    ends: AbortRegistration,
}

/// A server's names are looked up while this lives.
pub(crate) struct Following(AbortHandle);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A configured URL whose host is to be looked up.
struct Name {
    url: usize,
    host: String,
    port: u16,
    discovery: Discovery,
}

/// An entry on its way to the thread, and where to say that a name was tried.
struct Job {
    entry: Entry,
    tried: SyncSender<()>,
}

impl Batch {
    /// Takes a server's URLs; an address is its own answer.
    pub(crate) fn add(
        &mut self,
        server: &str,
        discovery: Discovery,
        urls: &[Endpoint],
    ) -> (Arc<Sites>, Arc<Following>) {
        let mut directory = Directory::new(server, discovery, urls);
        let mut names = Vec::new();
        for (number, url) in urls.iter().enumerate() {
            match url.host.parse::<IpAddr>() {
                Ok(address) => {
                    let addresses = vec![SocketAddr::new(address, url.port)];
                    directory.update(
                        number,
                        vec![Found { host: url.host.as_str().into(), port: url.port, addresses }],
                    );
                }
                Err(_) => names.push(Name { url: number, host: url.host.clone(), port: url.port, discovery }),
            }
        }
        let sites = directory.sites();
        let (handle, ends) = AbortHandle::new_pair();
        self.0.push(Entry { directory, names, ends });
        (sites, Arc::new(Following(handle)))
    }
}

impl Resolver {
    pub(crate) fn new(dns: &Dns) -> Self {
        Resolver { dns: dns.clone(), thread: None }
    }

    /// Looks up what is to be looked up, and goes on doing so; returns when each name was looked up once, or took too long.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub(crate) fn follow(&mut self, batch: Batch) -> std::io::Result<()> {
        let entries: Vec<Entry> = batch.0.into_iter().filter(|entry| !entry.names.is_empty()).collect();
        let count = entries.iter().map(|entry| entry.names.len()).sum();
        if count == 0 {
            return Ok(());
        }
        let thread = match &self.thread {
            Some(thread) => thread.clone(),
            None => self.thread.insert(start(self.dns.clone())?).clone(),
        };
        let (tried, first_tries) = sync_channel(count);
        let jobs = entries.into_iter().map(|entry| Job { entry, tried: tried.clone() }).collect();
        if thread.blocking_send(jobs).is_err() {
            return Err(std::io::Error::other("the resolver's thread is gone"));
        }
        let by = Instant::now() + FIRST_WAIT;
        for _ in 0..count {
            if first_tries.recv_timeout(by.saturating_duration_since(Instant::now())).is_err() {
                tracing::warn!("not all names of servers are known yet");
                break;
            }
        }
        Ok(())
    }
}

fn start(dns: Dns) -> std::io::Result<mpsc::Sender<Vec<Job>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, mut batches) = mpsc::channel::<Vec<Job>>(BATCHES);
    std::thread::Builder::new().name("resolver".into()).spawn(move || {
        let lookup = Lookup::new(&dns);
        runtime.block_on(async {
            let mut followed = FuturesUnordered::new();
            loop {
                let jobs = poll_fn(|cx| {
                    while let Poll::Ready(Some(())) = followed.poll_next_unpin(cx) {}
                    batches.poll_recv(cx)
                });
                let Some(jobs) = jobs.await else { return };
                followed.extend(jobs.into_iter().map(|job| follow(job, &lookup, &dns)));
            }
        });
    })?;
    Ok(sender)
}

/// Follows a server's names until nobody needs them.
async fn follow(job: Job, lookup: &Lookup, dns: &Dns) {
    let Entry { directory, names, ends } = job.entry;
    let directory = Rc::new(RefCell::new(directory));
    let watches = names.iter().map(|name| watch(name, directory.clone(), lookup, dns, job.tried.clone()));
    // Its end is the abortion's.
    let _ = Abortable::new(join_all(watches), ends).await;
}

/// Follows one name for as long as it is let.
async fn watch(
    name: &Name,
    server: Rc<RefCell<Directory>>,
    lookup: &Lookup,
    dns: &Dns,
    tried: SyncSender<()>,
) {
    let mut told: Option<String> = None;
    loop {
        let found = match name.discovery {
            Discovery::Name => lookup.addresses(&name.host, name.port).await.map(|(addresses, ttl)| {
                (vec![Found { host: name.host.as_str().into(), port: name.port, addresses }], ttl)
            }),
            Discovery::Addresses => lookup.addresses(&name.host, name.port).await.map(|(addresses, ttl)| {
                let found = |address| Found {
                    host: name.host.as_str().into(),
                    port: name.port,
                    addresses: vec![address],
                };
                (addresses.into_iter().map(found).collect(), ttl)
            }),
            Discovery::Srv => lookup.services(&name.host).await,
        };
        let wait = match found {
            Ok((found, ttl)) => {
                server.borrow_mut().update(name.url, found);
                told = None;
                ttl.clamp(dns.min_ttl, dns.max_ttl)
            }
            Err(error) => {
                // Once for each new reason: what goes on failing would fill the log.
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    tracing::warn!(host = name.host, error, "a server's name could not be looked up");
                    told = Some(error);
                }
                AGAIN.clamp(dns.min_ttl, dns.max_ttl)
            }
        };
        // The channel has room for one word of each name; after the first nobody listens.
        let _ = tried.try_send(());
        tokio::time::sleep(wait).await;
    }
}
