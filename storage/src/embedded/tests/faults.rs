//! A disk that fails.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::*;

/// Memory that refuses to be written to once told so.
#[derive(Debug)]
struct Disk {
    memory: InMemoryBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.memory.write(offset, data)
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_not_ready() {
    let full = Arc::new(AtomicBool::new(false));
    let disk = Disk {
        memory: InMemoryBackend::new(),
        full: Arc::clone(&full),
    };
    let database = redb::Builder::new().create_with_backend(disk).unwrap();
    let marks = open::initialise(&database, Path::new("disk")).unwrap();
    let store = Embedded::start(database, marks, 10);
    let revision = put(&store, "/a", "1").await;
    let mut watch = store.watch("/", revision).await.unwrap();
    assert!(store.ready().await.is_ok());

    full.store(true, Ordering::SeqCst);
    let batch = vec![
        Operation::put("/a", "2", Precondition::None),
        Operation::put("/b", "2", Precondition::None),
    ];
    for outcome in store.batch(batch).await {
        assert!(matches!(outcome, Err(Error::Io { .. })), "{outcome:?}");
    }
    full.store(false, Ordering::SeqCst);
    let later = store.put("/a", "3".into(), Precondition::None).await.unwrap_err();
    assert!(
        matches!(&later, Error::Unavailable { message } if message.contains("earlier write failed")),
        "{later}"
    );
    assert!(matches!(store.ready().await, Err(Error::Unavailable { .. })));
    assert_eq!(
        store.current_revision().await.unwrap(),
        revision,
        "nothing of it is published"
    );
    store.close().await;
    let end = watch.next().await.unwrap();
    assert!(
        matches!(end, Err(Error::Unavailable { .. })),
        "the watcher sees no event of it: {end:?}"
    );
}
