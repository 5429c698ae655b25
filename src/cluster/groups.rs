//! Names for several nodes.

use std::collections::{HashMap, HashSet};

/// Which members of a group get a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pick {
    /// One that is there.
    Any,
    /// Every one.
    All,
    /// Always the same one for the same key.
    Hash,
}

/// A name for several nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Group {
    /// Its name, without the `@`.
    pub name: String,
    /// Which members get a message.
    pub pick: Pick,
    /// The line of its `[[group]]`.
    pub line: u32,
    /// In the order of the file, each once.
    ids: Vec<u32>,
    set: HashSet<u32>,
}

impl Group {
    pub(super) fn new(name: &str, pick: Pick, line: u32) -> Group {
        Group { name: name.into(), pick, line, ids: Vec::new(), set: HashSet::new() }
    }

    pub(super) fn add(&mut self, id: u32) {
        if self.set.insert(id) {
            self.ids.push(id);
        }
    }

    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    pub(super) fn has(&self, id: u32) -> bool {
        self.set.contains(&id)
    }

    /// How many members it has.
    pub fn count(&self) -> usize {
        self.ids.len()
    }
}

/// All groups, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Groups {
    list: Vec<Group>,
    names: HashMap<Box<str>, usize>,
}

impl Groups {
    pub(super) fn get(&self, name: &str) -> Option<&Group> {
        self.names.get(name).map(|at| &self.list[*at])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.list.iter()
    }

    pub(super) fn add(&mut self, group: Group) {
        self.names.insert(group.name.as_str().into(), self.list.len());
        self.list.push(group);
    }
}
