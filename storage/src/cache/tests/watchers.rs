//! Who gets an event, against asking everybody.

use proptest::prelude::*;

use super::super::watchers::Watchers;
use super::*;
use crate::bounded::{Received, channel};

const FIELDS: [&str; 2] = ["spec.a", "spec.b"];
const SCOPES: [&str; 6] = ["", "/o/", "/o/n", "/o/n/", "/o/n/x", "/o/ü/"];
const KEYS: [&str; 5] = ["/o/n/x", "/o/n/xy", "/o/n2/x", "/o/ü/x", "/p/x"];

type Wanted = (usize, Option<(usize, u8)>);

fn wanted() -> impl Strategy<Value = Wanted> {
    (0..SCOPES.len(), prop::option::of((0..FIELDS.len(), 0..3_u8)))
}

/// The values of the fields; 0 is none.
type Values = [u8; 2];

fn values() -> impl Strategy<Value = Values> {
    [0..3_u8, 0..3_u8]
}

fn text(value: u8) -> String {
    if value == 0 { String::new() } else { value.to_string() }
}

fn object(key: &str, values: Values) -> Arc<CachedObject<()>> {
    let fields = FIELDS.into_iter().zip(values).filter(|(_, value)| *value > 0);
    Arc::new(CachedObject {
        key: key.into(),
        revision: Revision(1),
        bytes: Bytes::new(),
        namespace: "".into(),
        name: "".into(),
        labels: StringMap::default(),
        fields: fields.map(|(field, value)| (field, text(value))).collect(),
        extra: (),
    })
}

proptest! {
    #[test]
    fn everybody_concerned_gets_the_event_once(
        watchers in prop::collection::vec((wanted(), any::<bool>()), 0..20),
        events in prop::collection::vec((0..KEYS.len(), values(), prop::option::of(values())), 1..20),
    ) {
        let mut index = Watchers::new();
        let mut watching = Vec::new();
        for ((scope, field), leaves) in watchers {
            let (sender, receiver) = channel(100);
            let value = field.map(|(field, value)| (FIELDS[field], text(value)));
            let place = index.add(SCOPES[scope], value.as_ref().map(|(field, value)| (*field, value.as_str())), sender);
            watching.push((SCOPES[scope], value, place, receiver, leaves));
        }
        for (_, _, place, _, _) in watching.iter().filter(|(.., leaves)| *leaves) {
            index.remove(place);
            index.remove(place);
        }
        prop_assert_eq!(index.len(), watching.iter().filter(|(.., leaves)| !leaves).count());
        for (key, now, before) in events {
            let key = KEYS[key];
            let previous = before.map(|before| object(key, before));
            let event = Arc::new(CacheEvent::new(EventKind::Put, object(key, now), previous, Revision(1)));
            prop_assert_eq!(index.publish(&event), 0);
            for (scope, value, _, receiver, leaves) in &mut watching {
                let has = |object: &CachedObject<()>| value.as_ref().is_none_or(|(field, value)| object.field(field) == value);
                let concerns = key.starts_with(*scope)
                    && (has(&event.object) || event.previous.as_deref().is_some_and(has));
                let got = matches!(receiver.try_receive(), Some(Received::Item(_)));
                prop_assert_eq!(got, concerns && !*leaves, "{:?} {:?}", scope, value);
                prop_assert!(receiver.is_idle(), "once");
            }
        }
    }
}

#[test]
fn who_is_slow_is_ended_and_forgotten() {
    let mut index = Watchers::new();
    let (sender, mut slow) = channel(1);
    let place = index.add("/o/", Some(("spec.a", "1")), sender);
    let event = Arc::new(CacheEvent::new(
        EventKind::Put,
        object("/o/n/x", [1, 0]),
        None,
        Revision(1),
    ));
    assert_eq!((index.publish(&event), index.len()), (0, 1));
    assert_eq!((index.publish(&event), index.len()), (1, 0));
    assert!(matches!(slow.try_receive(), Some(Received::Item(_))));
    assert!(matches!(
        slow.try_receive(),
        Some(Received::Ended(Error::SlowWatcher { capacity: 1 }))
    ));
    index.remove(&place);
    assert_eq!((index.publish(&event), index.len()), (0, 0));
}
