//! A disk that fails at its k-th operation, for every k of a history, once or until it is repaired.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::StorageBackend;

use super::super::*;
use crate::embedded::medium::{Backend, Medium, Memory};

/// Fails operations of a disk that change it.
#[derive(Debug, Default)]
struct Fault {
    /// Operations until the fault.
    countdown: AtomicU64,
    /// Whether operations after the fault work again.
    once: bool,
    /// The fault is over.
    repaired: AtomicBool,
    met: AtomicBool,
    /// Reads fail, and nothing else.
    reads: bool,
    /// It cannot even be opened for writing, as a disk that has become read-only.
    read_only: AtomicBool,
}

impl Fault {
    fn new(after: u64, once: bool) -> Arc<Self> {
        Arc::new(Self {
            countdown: AtomicU64::new(after),
            once,
            ..Self::default()
        })
    }

    /// Before an operation that changes the disk.
    fn check_change(&self) -> io::Result<()> {
        if self.reads { Ok(()) } else { self.check() }
    }

    fn check(&self) -> io::Result<()> {
        if self.repaired.load(Ordering::SeqCst) {
            return Ok(());
        }
        let left = self
            .countdown
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(1)))
            .expect("the closure always answers");
        if left > 0 {
            return Ok(());
        }
        self.met.store(true, Ordering::SeqCst);
        if self.once {
            self.repaired.store(true, Ordering::SeqCst);
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

#[derive(Debug)]
struct FaultyMemory {
    memory: Memory,
    fault: Arc<Fault>,
}

impl Medium for FaultyMemory {
    fn path(&self) -> &Path {
        Path::new("faulty")
    }

    fn open_read_only(&self) -> io::Result<Backend> {
        self.memory.open_read_only()
    }

    fn open(&self, after_failure: bool) -> io::Result<Backend> {
        if self.fault.read_only.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(Backend(Box::new(FaultyBackend {
            inner: self.memory.open(after_failure)?,
            fault: Arc::clone(&self.fault),
        })))
    }

    fn probe(&self) -> io::Result<()> {
        if self.fault.read_only.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.fault.check_change()
    }
}

#[derive(Debug)]
struct FaultyBackend {
    inner: Backend,
    fault: Arc<Fault>,
}

impl StorageBackend for FaultyBackend {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.fault.reads {
            self.fault.check()?;
        }
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fault.check_change()?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fault.check_change()?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Err(error) = self.fault.check_change() {
            // As a real disk does, it takes a part.
            let part = &data[..data.len() / 2];
            self.inner.write(offset, part)?;
            return Err(error);
        }
        self.inner.write(offset, data)
    }
}

/// What is known of each write: acknowledged, refused, or unknown.
#[derive(Debug, Default)]
struct Known {
    /// The revision and value of the newest acknowledged write of each key; `None` for a deletion.
    acknowledged: BTreeMap<String, (Revision, Option<String>)>,
    /// Values whose outcome is unknown.
    unknown: Vec<String>,
    newest: Revision,
}

/// Puts, overwrites, deletes and compacts, each an operation of its own, and notes the outcomes.
async fn write_history(store: &Embedded, rounds: usize, known: &mut Known) {
    for round in 0..rounds {
        let key = format!("/{}", round % 4);
        let value = format!("{round}:{}", "x".repeat(round * 700));
        let delete = round % 5 == 4;
        let outcome = if delete {
            store.delete(&key, Precondition::None).await
        } else {
            store.put(&key, value.clone().into(), Precondition::None).await
        };
        match outcome {
            Ok(revision) => {
                assert!(revision > known.newest, "revision {revision} was given out twice");
                known.newest = revision;
                known.acknowledged.insert(key, (revision, (!delete).then_some(value)));
            }
            Err(Error::Io { .. }) => known.unknown.push(value),
            Err(Error::Unavailable { message }) => {
                assert!(
                    message.contains("faulty") || message.contains("opened again"),
                    "{message}"
                );
            }
            Err(Error::NotFound { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        if round == 7 {
            let current = store.current_revision().await.unwrap();
            let _ = store.compact(Revision(current.0 - 1)).await;
        }
    }
}

/// Waits until the store is ready.
async fn recovered(store: &Embedded) {
    let ready = async {
        while store.ready().await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready)
        .await
        .expect("the store recovers by itself");
}

/// Everything that was acknowledged is there, and the watch has seen each change once and in order.
async fn verify(store: &Embedded, known: &Known, watch: &mut crate::WatchStream, start: Revision) {
    let current = store.current_revision().await.unwrap();
    assert!(current >= known.newest);
    for (key, (revision, value)) in &known.acknowledged {
        let entry = store.get(key).await.unwrap().entry;
        let stored = entry
            .as_ref()
            .map(|entry| String::from_utf8(entry.value.to_vec()).unwrap());
        let overtaken = match &entry {
            Some(entry) => entry.revision > *revision,
            // A deletion of unknown outcome.
            None => !known.unknown.is_empty(),
        };
        assert!(
            stored == *value || (overtaken && stored.as_ref().is_none_or(|value| known.unknown.contains(value))),
            "{key} was acknowledged at {revision}"
        );
    }
    let mut expected = start;
    while expected < current {
        expected = expected.next();
        let event = watch.next().await.unwrap().unwrap();
        assert_eq!(event.revision(), expected, "each change is delivered once, in order");
    }
}

async fn fail_at(operation: u64, once: bool) -> bool {
    let fault = Fault::new(operation, once);
    // Creating the store is not what is tested here.
    let memory = Memory::default();
    drop(open::open_on(&memory, 1 << 20, false).unwrap());
    let medium = FaultyMemory {
        memory,
        fault: Arc::clone(&fault),
    };
    let options = Options::default();
    let Ok(store) = Embedded::on_medium(Arc::new(medium), &options) else {
        return true;
    };
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch("/", start).await.unwrap();
    let mut known = Known::default();
    write_history(&store, 14, &mut known).await;
    let met = fault.met.load(Ordering::SeqCst);
    fault.repaired.store(true, Ordering::SeqCst);
    recovered(&store).await;
    verify(&store, &known, &mut watch, start).await;
    // And it goes on.
    let more = put(&store, "/more", "1").await;
    assert!(more > known.newest);
    let event = watch.next().await.unwrap().unwrap();
    assert_eq!(event.revision(), more);
    store.close().await;
    met
}

#[tokio::test]
async fn no_fault_of_the_disk_loses_a_write() {
    let mut cases = 0;
    for once in [true, false] {
        for operation in 0.. {
            cases += 1;
            if !fail_at(operation, once).await {
                assert!(operation > 50, "the history writes");
                break;
            }
        }
    }
    println!("{cases} faults");
}

#[tokio::test]
async fn reads_go_on_and_ready_says_why() {
    let fault = Fault::new(u64::MAX, false);
    let medium = FaultyMemory {
        memory: Memory::default(),
        fault: Arc::clone(&fault),
    };
    let store = Embedded::on_medium(Arc::new(medium), &Options::default()).unwrap();
    let revision = put(&store, "/a", "1").await;
    fault.countdown.store(3, Ordering::SeqCst);
    let batch = vec![
        Operation::put("/a", "2", Precondition::None),
        Operation::put("/b", "2", Precondition::None),
    ];
    for outcome in store.batch(batch).await {
        let error = outcome.unwrap_err();
        assert!(
            matches!(error, Error::Io { .. } | Error::Unavailable { .. }),
            "{error:?}"
        );
    }
    let reason = store.ready().await.unwrap_err().to_string();
    assert!(reason.contains("faulty") && reason.contains("free space"), "{reason}");
    let refused = store.put("/a", "3".into(), Precondition::None).await.unwrap_err();
    assert!(matches!(&refused, Error::Unavailable { .. }), "{refused:?}");
    assert_eq!(
        store.current_revision().await.unwrap(),
        revision,
        "nothing of it is published"
    );
    fault.repaired.store(true, Ordering::SeqCst);
    recovered(&store).await;
    assert_eq!(store.get("/a").await.unwrap().entry.unwrap().revision, revision);
    assert_eq!(put(&store, "/a", "4").await, revision.next());
    store.close().await;
}

#[tokio::test]
async fn a_failed_read_is_an_error_and_the_next_one_works() {
    let mut failed = 0;
    for operation in 0..40 {
        let fault = Arc::new(Fault {
            countdown: AtomicU64::new(u64::MAX),
            once: true,
            reads: true,
            ..Fault::default()
        });
        let medium = FaultyMemory {
            memory: Memory::default(),
            fault: Arc::clone(&fault),
        };
        // Hardly any memory for pages, so that reads go to the disk.
        let options = Options {
            page_cache_bytes: 16 << 10,
            ..Options::default()
        };
        let store = Embedded::on_medium(Arc::new(medium), &options).unwrap();
        for key in 0..30 {
            let value = vec![b'x'; 3_000];
            store
                .put(&format!("/{key}"), value.into(), Precondition::None)
                .await
                .unwrap();
        }
        fault.countdown.store(operation, Ordering::SeqCst);
        for key in 0..30 {
            match store.get(&format!("/{key}")).await {
                Ok(read) => assert_eq!(read.entry.unwrap().value.len(), 3_000),
                Err(error) => {
                    failed += 1;
                    assert!(
                        matches!(error, Error::Io { .. } | Error::Unavailable { .. }),
                        "{error:?}"
                    );
                }
            }
        }
        recovered(&store).await;
        let all = store.range(RangeRequest::default()).await.unwrap();
        assert_eq!(all.entries.len(), 30);
        put(&store, "/more", "1").await;
        store.close().await;
    }
    assert!(failed > 0, "some read met the fault");
}

#[tokio::test]
async fn reads_go_on_where_nothing_can_be_written() {
    let fault = Fault::new(u64::MAX, false);
    let medium = FaultyMemory {
        memory: Memory::default(),
        fault: Arc::clone(&fault),
    };
    let store = Embedded::on_medium(Arc::new(medium), &Options::default()).unwrap();
    let first = put(&store, "/a", "1").await;
    let revision = put(&store, "/a", "2").await;
    fault.read_only.store(true, Ordering::SeqCst);
    fault.countdown.store(0, Ordering::SeqCst);
    let refused = store.put("/a", "3".into(), Precondition::None).await.unwrap_err();
    assert!(
        matches!(refused, Error::Io { .. } | Error::Unavailable { .. }),
        "{refused:?}"
    );
    for _ in 0..20 {
        assert_eq!(store.get("/a").await.unwrap().entry.unwrap().revision, revision);
        let past = store.range(RangeRequest::default().at(first)).await.unwrap();
        assert_eq!(past.entries[0].value, "1");
        let reason = store.ready().await.unwrap_err().to_string();
        assert!(reason.contains("make that file system writable"), "{reason}");
    }
    fault.repaired.store(true, Ordering::SeqCst);
    fault.read_only.store(false, Ordering::SeqCst);
    recovered(&store).await;
    assert_eq!(put(&store, "/a", "4").await, revision.next());
    store.close().await;
}
