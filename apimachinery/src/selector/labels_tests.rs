use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
    let labels: BTreeMap<_, _> = labels.iter().copied().collect();
    Selector::parse(selector)
        .unwrap_or_else(|error| panic!("{selector}: {error}"))
        .matches(|key| labels.get(key).copied())
}

#[test]
fn matching() {
    let labels = [("x", "a"), ("y", "b"), ("n", "10"), ("in", "in")];
    for selector in [
        "",
        "x=a",
        "x==a",
        "x = a , y = b",
        "x!=b",
        "z!=b",
        "x in (a,b)",
        "x in (b, a)",
        "z notin (a)",
        "x notin (b)",
        "x",
        "!z",
        "n>9",
        "n<11",
        "in in (in)",
        "x,y,!z,n notin ()",
        "x\t in\n(a)",
    ] {
        assert!(matches(selector, &labels), "{selector}");
    }
    for selector in [
        "x=b",
        "x=",
        "z=",
        "x!=a",
        "x in (b)",
        "z in (a,)",
        "x notin (a)",
        "z",
        "!x",
        "n>10",
        "n<10",
        "x>1",
        "z>1",
        "z<1",
        "x=a,y=a",
        "x in ()",
    ] {
        assert!(!matches(selector, &labels), "{selector}");
    }
    assert!(matches("x in (a,,b)", &[("x", "")]));
    assert!(matches("x in (,)", &[("x", "")]));
    assert!(matches("x=", &[("x", "")]));
}

#[test]
fn printing_sorts_keys_and_values() {
    for (text, expected) in [
        ("z, b in (d,c,c) ,a==1", "a==1,b in (c,d),z"),
        ("!a,b!=c", "!a,b!=c"),
        ("x in ()", "x in ()"),
        ("x in (,a)", "x in (,a)"),
        ("n>1,m<2", "m<2,n>1"),
        ("", ""),
    ] {
        assert_eq!(Selector::parse(text).unwrap().to_string(), expected);
    }
}

#[test]
fn errors_are_those_of_kubernetes() {
    for (text, expected) in [
        ("x=a,", "found '', expected: identifier after ','"),
        (",x=a", "found ',', expected: !, identifier, or 'end of string'"),
        ("x=a b", "found 'b', expected: ',' or 'end of string'"),
        ("!x=a", "found '=', expected: ',' or 'end of string'"),
        (
            "x a",
            "unable to parse requirement: found 'a', expected: in, notin, =, ==, !=, gt, lt",
        ),
        ("x in a", "unable to parse requirement: found 'a' expected: '('"),
        ("x in (a", "unable to parse requirement: found '', expected: ',' or ')'"),
        (
            "x in (=",
            "unable to parse requirement: found '=', expected: ',', ')' or identifier",
        ),
        ("x==(", "unable to parse requirement: found '(', expected: identifier"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        (
            "x>a",
            "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        (
            "x^=1",
            "unable to parse requirement: <nil>: Invalid value: \"x^\": name part must consist of alphanumeric \
             characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or \
             'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
        (
            "x=a/b",
            "unable to parse requirement: values[0][x]: Invalid value: \"a/b\": a valid label must be an empty string \
             or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
             character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
    ] {
        assert_eq!(Selector::parse(text).expect_err(text).to_string(), expected, "{text}");
    }
    let error = Requirement::new("a^", Operator::In, Vec::new())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("[key: Invalid value: \"a^\": ") && error.ends_with("can't be empty]"),
        "{error}"
    );
}

#[test]
fn nothing_stays_nothing() {
    let more = Requirement::new("a", Operator::Exists, Vec::new()).unwrap();
    let nothing = Selector::nothing().and([more.clone()]);
    assert!(nothing.is_nothing() && !nothing.is_everything());
    assert!(!nothing.matches(|_| Some("b")));
    assert_eq!(Selector::everything().and([more]).to_string(), "a");
}

#[test]
fn exact_matches_for_indices() {
    let exact = |text: &str| {
        Selector::parse(text)
            .unwrap()
            .requires_exact_match("a")
            .map(str::to_owned)
    };
    assert_eq!(exact("a=1"), Some("1".to_owned()));
    assert_eq!(exact("b=2,a in (1)"), Some("1".to_owned()));
    assert_eq!(exact("a in (1,2)"), None);
    assert_eq!(exact("a!=1"), None);
    assert_eq!(exact("b=1"), None);
}

fn requirement() -> impl Strategy<Value = Requirement> {
    use Operator::*;
    let operators = vec![
        In,
        NotIn,
        Equals,
        DoubleEquals,
        NotEquals,
        Exists,
        DoesNotExist,
        GreaterThan,
        LessThan,
    ];
    let values = proptest::collection::btree_set("[a-c]?|in|notin", 1..3);
    (
        "[a-c]|x[.]y/in|notin",
        proptest::sample::select(operators),
        values,
        -5i64..5,
    )
        .prop_map(|(key, operator, values, n)| {
            let values = match operator {
                In | NotIn => values.into_iter().collect(),
                Equals | DoubleEquals | NotEquals => values.into_iter().take(1).collect(),
                Exists | DoesNotExist => Vec::new(),
                GreaterThan | LessThan => vec![n.unsigned_abs().to_string()],
            };
            Requirement::new(key, operator, values).unwrap()
        })
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(requirements in proptest::collection::vec(requirement(), 0..5)) {
        let selector = Selector::new(requirements);
        prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
    }

    #[test]
    fn no_text_panics(text in "[a-c=!<>(), \t]{0,12}|\\PC{0,12}") {
        let _ = Selector::parse(&text);
    }

    #[test]
    fn opposites_exclude_each_other(value in proptest::option::of("[a-c]")) {
        for (one, other) in [("a in (a,b)", "a notin (a,b)"), ("a=c", "a!=c"), ("a", "!a")] {
            let selected = |text: &str| Selector::parse(text).unwrap().matches(|_| value.as_deref());
            prop_assert_ne!(selected(one), selected(other));
        }
    }
}
