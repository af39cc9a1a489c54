//! Files that are damaged: whatever has happened to one, opening or reading says so, and nothing wrong is read.

use umbra_show::Item;

use super::*;
use crate::RangeResponse;
use crate::embedded::medium::{DataFile, Medium, StoreLock};

/// How many positions to damage; more for a longer run.
const POSITIONS: &str = "UMBRA_STORAGE_DAMAGE_POSITIONS";
const DEFAULT_POSITIONS: usize = 250;

/// Everything that can be read.
#[derive(Debug, PartialEq)]
struct Content {
    present: RangeResponse,
    past: RangeResponse,
    events: Vec<WatchEvent>,
}

async fn read(store: &Embedded, oldest: Revision, current: Revision) -> Result<Content, Error> {
    let present = store.range(RangeRequest::default()).await?;
    for entry in &present.entries {
        let read = store.get(&entry.key).await?;
        assert_eq!(read.entry.as_ref(), Some(entry));
    }
    let past = store.range(RangeRequest::default().at(oldest)).await?;
    let mut watch = store.watch("/", oldest).await?;
    let mut events = Vec::new();
    while oldest.0 + (events.len() as u64) < current.0 {
        events.push(watch.next().await.expect("a watch ends with an error")?);
    }
    Ok(Content { present, past, events })
}

/// A store with all kinds of rows, in several levels of pages.
async fn write(path: &Path) -> (Content, Revision, Revision) {
    let options = Options {
        history: None,
        ..Options::default()
    };
    let store = Embedded::open(path, options).await.unwrap();
    for round in 0..3 {
        let operations = (0..120).map(|key| {
            let value = format!("{round}-{key}-{}", "v".repeat(key * 13 % 900));
            Operation::put(format!("/objects/{key:04}"), value, Precondition::None)
        });
        assert!(store.batch(operations.collect()).await.iter().all(Result::is_ok));
    }
    let oldest = store.current_revision().await.unwrap();
    store.compact(Revision(oldest.0 - 100)).await.unwrap();
    for key in (0..120).step_by(3) {
        store
            .delete(&format!("/objects/{key:04}"), Precondition::None)
            .await
            .unwrap();
        put(&store, &format!("/more/{key}"), "1").await;
    }
    let current = store.current_revision().await.unwrap();
    let content = read(&store, oldest, current).await.unwrap();
    store.close().await;
    (content, oldest, current)
}

fn positions() -> usize {
    std::env::var(POSITIONS).map_or(DEFAULT_POSITIONS, |count| count.parse().unwrap())
}

/// What the text of an error has to have: which file, and what to do.
fn assert_helpful(text: &str, path: &Path) {
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(text.contains("restore"), "{text}");
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_never_something_else() {
    let item = Item::open("storage.damaged");
    let directory = tempfile::tempdir().unwrap();
    let original = directory.path().join("original.redb");
    let (content, oldest, current) = write(&original).await;
    let bytes = std::fs::read(&original).unwrap();
    let path = directory.path().join("damaged.redb");
    let (mut refused, mut harmless) = (0, 0);
    let mut judge = |outcome: Result<Content, String>, what: String| match outcome {
        Ok(read) => {
            assert!(read == content, "{what}: something else was read");
            harmless += 1;
        }
        Err(text) => {
            assert_helpful(&text, &path);
            refused += 1;
        }
    };
    // The header, then the whole file in even steps, then the end.
    let step = bytes.len() / positions();
    let places = (0..512).step_by(7).chain((0..bytes.len()).step_by(step));
    for position in places {
        let mut damaged = bytes.clone();
        let block = position..(position + rand::random_range(1..64)).min(damaged.len());
        for byte in &mut damaged[block] {
            *byte ^= rand::random_range(1..=255_u8);
        }
        std::fs::write(&path, &damaged).unwrap();
        judge(
            open_and_read(&path, oldest, current).await,
            format!("damage at {position}"),
        );
    }
    for length in (0..bytes.len()).step_by(step * 5) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        judge(
            open_and_read(&path, oldest, current).await,
            format!("cut to {length} bytes"),
        );
    }
    assert!(refused > 50, "{refused} refused, {harmless} harmless");
    item.pass(&format!(
        "{refused} damaged files refused by name, {harmless} damaged where nothing is stored, 0 read wrong"
    ));
}

async fn open_and_read(path: &Path, oldest: Revision, current: Revision) -> Result<Content, String> {
    let options = Options {
        history: None,
        ..Options::default()
    };
    let store = Embedded::open(path, options).await.map_err(|error| {
        assert!(
            matches!(error, OpenError::Damaged { .. } | OpenError::NotAStore { .. }),
            "{error:?}"
        );
        error.to_string()
    })?;
    let outcome = tokio::time::timeout(Duration::from_secs(30), read(&store, oldest, current)).await;
    let outcome = outcome.expect("reading ends").map_err(|error| {
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
        error.to_string()
    });
    if outcome.is_err() {
        assert!(store.ready().await.is_err(), "a damaged store is not ready");
    }
    store.close().await;
    outcome
}

/// In a file that is too large to be compared with all its checksums at the start, a damaged row concerns its key alone.
#[tokio::test]
async fn a_damaged_row_is_found_when_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let (content, ..) = write(&path).await;
    let mut bytes = std::fs::read(&path).unwrap();
    let value = &content.present.entries[70].value;
    let places: Vec<usize> = memchr_all(&bytes, value);
    assert!(!places.is_empty(), "values are stored as they are");
    for place in places {
        bytes[place + 2] ^= 1;
    }
    std::fs::write(&path, &bytes).unwrap();
    let medium = DataFile::new(path.clone(), StoreLock::acquire(&path).unwrap());
    let store = Embedded::on_medium(Arc::new(medium) as Arc<dyn Medium>, &Options::default()).unwrap();
    assert!(store.ready().await.is_ok(), "nobody has read it");
    let key = &content.present.entries[70].key;
    for entry in content.present.entries.iter().filter(|entry| entry.key != *key) {
        assert_eq!(store.get(&entry.key).await.unwrap().entry.as_ref(), Some(entry));
    }
    let error = store.get(key).await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    assert_helpful(&error.to_string(), &path);
    assert_helpful(&store.ready().await.unwrap_err().to_string(), &path);
    let overwritten = store.put(key, "new".into(), Precondition::None).await;
    assert!(matches!(overwritten, Err(Error::Damaged { .. })), "{overwritten:?}");
    put(&store, "/other", "1").await;
    let backup = store.backup(directory.path().join("backup")).await;
    assert!(backup.is_err(), "no backup is made of what cannot be read");
    store.close().await;
}

fn memchr_all(bytes: &[u8], part: &[u8]) -> Vec<usize> {
    let places = 0..bytes.len() - part.len();
    places.filter(|place| bytes[*place..].starts_with(part)).collect()
}
