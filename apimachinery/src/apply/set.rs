//! Sets of field paths, and their algebra.
//!
//! A set is a tree: the elements that are members here, and the elements below which there are members. Both are
//! sorted, so every operation of two sets is one merge join and linear. Subtrees are shared between sets, so that what
//! an operation does not touch is not copied. A child without members is never kept, which makes equality structural.
//!
//! Source: `structured-merge-diff/v6/fieldpath/set.go`.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::node::Node;
use super::path::{Path, PathElement};

/// A set of field paths. A path in the set says nothing of its parents or children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    members: Vec<PathElement>,
    children: Vec<Child>,
}

/// The members below one element.
type Child = (PathElement, Arc<Set>);

/// What a merge join finds.
pub(super) enum Joined<'a, L, R> {
    Left(&'a L),
    Right(&'a R),
    Both(&'a L, &'a R),
}

/// What a sorted sequence is sorted by.
pub(super) trait Keyed {
    fn element(&self) -> &PathElement;
}

impl Keyed for PathElement {
    fn element(&self) -> &PathElement {
        self
    }
}

impl Keyed for Child {
    fn element(&self) -> &PathElement {
        &self.0
    }
}

/// Walks two sorted sequences together.
fn join<'a, L: Keyed, R: Keyed>(left: &'a [L], right: &'a [R]) -> impl Iterator<Item = Joined<'a, L, R>> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (Some(left), Some(right)) => left.element().cmp(right.element()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        match order {
            Ordering::Less => left.next().map(Joined::Left),
            Ordering::Greater => right.next().map(Joined::Right),
            Ordering::Equal => left
                .next()
                .zip(right.next())
                .map(|(left, right)| Joined::Both(left, right)),
        }
    })
}

impl Set {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The set of these fields, each given by the names from the top: `[&["status"], &["metadata", "name"]]`.
    #[must_use]
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        paths.iter().map(|names| Path::of_fields(names)).collect()
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// How many paths are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len() + self.children.iter().map(|(_, child)| child.len()).sum::<usize>()
    }

    /// Adds a path. The empty path names the whole object, which nobody owns, and is ignored.
    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [element] => self.insert_member(element.clone()),
            [element, rest @ ..] => {
                let index = match self.children.binary_search_by(|(own, _)| own.cmp(element)) {
                    Ok(index) => index,
                    Err(index) => {
                        self.children.insert(index, (element.clone(), Arc::default()));
                        index
                    }
                };
                Arc::make_mut(&mut self.children[index].1).insert(rest);
            }
        }
    }

    /// Adds an element at the top. Fast where elements come in order.
    pub(super) fn insert_member(&mut self, element: PathElement) {
        if self.members.last().is_none_or(|last| *last < element) {
            self.members.push(element);
        } else if let Err(index) = self.members.binary_search(&element) {
            self.members.insert(index, element);
        }
    }

    /// Adds all of `below` under an element. Fast where elements come in order.
    pub(super) fn insert_children(&mut self, element: PathElement, below: Self) {
        if below.is_empty() {
            return;
        }
        if self.children.last().is_none_or(|(last, _)| *last < element) {
            self.children.push((element, Arc::new(below)));
            return;
        }
        match self.children.binary_search_by(|(own, _)| own.cmp(&element)) {
            Ok(index) => {
                let child = &mut self.children[index].1;
                *child = Arc::new(child.union(&below));
            }
            Err(index) => self.children.insert(index, (element, Arc::new(below))),
        }
    }

    /// Whether the path is in the set.
    #[must_use]
    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [element] => self.has_member(element),
            [element, rest @ ..] => self.below(element).is_some_and(|child| child.has(rest)),
        }
    }

    /// Whether the one-element path is in the set.
    #[must_use]
    pub fn has_member(&self, element: &PathElement) -> bool {
        self.members.binary_search(element).is_ok()
    }

    /// The members below an element, without that element; `None` where there are none.
    #[must_use]
    pub fn below(&self, element: &PathElement) -> Option<&Self> {
        let index = self.children.binary_search_by(|(own, _)| own.cmp(element)).ok()?;
        Some(&self.children[index].1)
    }

    /// Whether the field `name` at the top is in the set.
    #[must_use]
    pub fn has_field(&self, name: &str) -> bool {
        self.members.binary_search_by(|own| own.compare_field(name)).is_ok()
    }

    /// The members below the field `name`; `None` where there are none.
    #[must_use]
    pub fn below_field(&self, name: &str) -> Option<&Self> {
        let index = self
            .children
            .binary_search_by(|(own, _)| own.compare_field(name))
            .ok()?;
        Some(&self.children[index].1)
    }

    /// The members and what is below each element, element by element in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&PathElement, bool, Option<&Self>)> {
        join(&self.members, &self.children).map(|joined| match joined {
            Joined::Left(member) => (member, true, None),
            Joined::Right((element, child)) => (element, false, Some(&**child)),
            Joined::Both(member, (_, child)) => (member, true, Some(&**child)),
        })
    }

    /// What is in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        if self.is_empty() {
            return other.clone();
        }
        if other.is_empty() {
            return self.clone();
        }
        let members = join(&self.members, &other.members).map(|joined| match joined {
            Joined::Left(member) | Joined::Right(member) | Joined::Both(member, _) => member.clone(),
        });
        let children = join(&self.children, &other.children).map(|joined| match joined {
            Joined::Left(child) | Joined::Right(child) => child.clone(),
            Joined::Both((element, left), (_, right)) => (element.clone(), Arc::new(left.union(right))),
        });
        Self {
            members: members.collect(),
            children: children.collect(),
        }
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let members = join(&self.members, &other.members).filter_map(|joined| match joined {
            Joined::Both(member, _) => Some(member.clone()),
            Joined::Left(_) | Joined::Right(_) => None,
        });
        let children = join(&self.children, &other.children).filter_map(|joined| match joined {
            Joined::Both((element, left), (_, right)) => nonempty(element, left.intersection(right)),
            Joined::Left(_) | Joined::Right(_) => None,
        });
        Self {
            members: members.collect(),
            children: children.collect(),
        }
    }

    /// What is in this set and not in the other. A parent is not a child: removing one leaves the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        let children = join(&self.children, &other.children).filter_map(|joined| match joined {
            Joined::Left(child) => Some(child.clone()),
            Joined::Both((element, left), (_, right)) => nonempty(element, left.difference(right)),
            Joined::Right(_) => None,
        });
        Self {
            members: self.members_without(other),
            children: children.collect(),
        }
    }

    /// What is in this set and neither in the other nor below a path of the other.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        let children = join(&self.children, &other.children).filter_map(|joined| match joined {
            Joined::Left((element, _)) | Joined::Both((element, _), _) if other.has_member(element) => None,
            Joined::Left(child) => Some(child.clone()),
            Joined::Both((element, left), (_, right)) => nonempty(element, left.recursive_difference(right)),
            Joined::Right(_) => None,
        });
        Self {
            members: self.members_without(other),
            children: children.collect(),
        }
    }

    /// The paths of the set that are not parents of other paths of the set.
    #[must_use]
    pub fn leaves(&self) -> Self {
        let members = join(&self.members, &self.children).filter_map(|joined| match joined {
            Joined::Left(member) => Some(member.clone()),
            Joined::Right(_) | Joined::Both(..) => None,
        });
        let children = self
            .children
            .iter()
            .map(|(element, child)| (element.clone(), Arc::new(child.leaves())));
        Self {
            members: members.collect(),
            children: children.collect(),
        }
    }

    /// The set, and every declared field that is a parent of a path of it: owning `spec.replicas` then owns `spec`.
    /// Entries of maps are not added.
    #[must_use]
    pub(super) fn with_declared_parents(&self, node: Node<'_>) -> Self {
        let mut out = Self {
            members: self.members.clone(),
            children: Vec::with_capacity(self.children.len()),
        };
        for (element, child) in &self.children {
            let below = match element {
                PathElement::Field(name) => {
                    if node.declares(name) {
                        out.insert_member(element.clone());
                    }
                    node.field(name)
                }
                PathElement::Key(_) => node.items(),
                PathElement::Value(_) | PathElement::Index(_) => Node::Nothing,
            };
            out.children
                .push((element.clone(), Arc::new(child.with_declared_parents(below))));
        }
        out
    }

    /// Calls `visit` with every path, parents before their children.
    pub fn for_each(&self, mut visit: impl FnMut(&[PathElement])) {
        self.for_each_below(&mut Vec::new(), &mut visit);
    }

    fn for_each_below(&self, prefix: &mut Vec<PathElement>, visit: &mut impl FnMut(&[PathElement])) {
        for member in &self.members {
            prefix.push(member.clone());
            visit(prefix);
            prefix.pop();
        }
        for (element, child) in &self.children {
            prefix.push(element.clone());
            child.for_each_below(prefix, visit);
            prefix.pop();
        }
    }

    /// All paths, in the order of [`Set::for_each`].
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::with_capacity(self.len());
        self.for_each(|path| paths.push(Path(path.to_vec())));
        paths
    }

    fn members_without(&self, other: &Self) -> Vec<PathElement> {
        join(&self.members, &other.members)
            .filter_map(|joined| match joined {
                Joined::Left(member) => Some(member.clone()),
                Joined::Right(_) | Joined::Both(..) => None,
            })
            .collect()
    }
}

fn nonempty(element: &PathElement, set: Set) -> Option<Child> {
    (!set.is_empty()).then(|| (element.clone(), Arc::new(set)))
}

impl FromIterator<Path> for Set {
    fn from_iter<I: IntoIterator<Item = Path>>(paths: I) -> Self {
        let mut set = Self::new();
        for path in paths {
            set.insert(&path.0);
        }
        set
    }
}

impl fmt::Display for Set {
    /// One path per line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.paths().iter().enumerate().try_for_each(|(index, path)| {
            let newline = if index > 0 { "\n" } else { "" };
            write!(f, "{newline}{path}")
        })
    }
}
