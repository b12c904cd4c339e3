//! Folders and their names, in two versions like file contents.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::SimRng;
use super::file::{FileData, Loss};
use crate::{Entry, parent};

pub(super) type FileRef = Arc<Mutex<FileData>>;
pub(super) type DirRef = Arc<Mutex<DirData>>;

#[derive(Debug, Clone)]
pub(super) enum Node {
    File(FileRef),
    Dir(DirRef),
}

impl Node {
    pub(super) fn entry(&self, name: &str) -> Entry {
        let (is_dir, len) = match self {
            Node::File(file) => (false, file.lock().len() as u64),
            Node::Dir(_) => (true, 0),
        };
        Entry { name: name.to_owned(), is_dir, len, modified_ms: 0 }
    }
}

/// One change of the names in a folder; a rename inside one folder is atomic.
#[derive(Debug, Clone)]
pub(super) enum DirChange {
    Set(String, Node),
    Remove(String),
    Rename { from: String, to: String, node: Node },
}

impl DirChange {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            DirChange::Set(name, node) => {
                names.insert(name.clone(), node.clone());
            }
            DirChange::Remove(name) => {
                names.remove(name);
            }
            DirChange::Rename { from, to, node } => {
                names.remove(from);
                names.insert(to.clone(), node.clone());
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct DirData {
    pub(super) view: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    unsynced: Vec<DirChange>,
}

impl DirData {
    pub(super) fn change(&mut self, change: DirChange) {
        change.apply(&mut self.view);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    pub(super) fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }
}

#[derive(Debug, Default)]
pub(super) struct Tree {
    root: DirRef,
}

impl Tree {
    /// Another handle on the same tree.
    pub(super) fn share(&self) -> Tree {
        Tree { root: self.root.clone() }
    }

    pub(super) fn node(&self, path: &str) -> io::Result<Node> {
        let mut node = Node::Dir(self.root.clone());
        for part in path.split('/').filter(|p| !p.is_empty()) {
            let Node::Dir(dir) = node else { return Err(io::ErrorKind::NotADirectory.into()) };
            node = dir.lock().view.get(part).cloned().ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    pub(super) fn dir(&self, path: &str) -> io::Result<DirRef> {
        match self.node(path)? {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file(&self, path: &str) -> io::Result<FileRef> {
        match self.node(path)? {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// The folder that holds a path, and the path's last part.
    pub(super) fn place(&self, path: &str) -> io::Result<(DirRef, String)> {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        Ok((self.dir(parent(path))?, name))
    }

    pub(super) fn create_file(&self, path: &str) -> io::Result<FileRef> {
        let (dir, name) = self.place(path)?;
        let file = FileRef::default();
        dir.lock().change(DirChange::Set(name, Node::File(file.clone())));
        Ok(file)
    }

    pub(super) fn create_dir_all(&self, path: &str) -> io::Result<()> {
        let mut dir = self.root.clone();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            let next = match dir.lock().view.get(part) {
                Some(Node::Dir(next)) => Some(next.clone()),
                Some(Node::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                None => None,
            };
            let next = next.unwrap_or_else(|| {
                let new = DirRef::default();
                dir.lock().change(DirChange::Set(part.to_owned(), Node::Dir(new.clone())));
                new
            });
            dir = next;
        }
        Ok(())
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let node = self.node(from)?;
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        if matches!(to_dir.lock().view.get(&to_name), Some(Node::Dir(_))) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if Arc::ptr_eq(&from_dir, &to_dir) {
            from_dir.lock().change(DirChange::Rename { from: from_name, to: to_name, node });
        } else {
            to_dir.lock().change(DirChange::Set(to_name, node));
            from_dir.lock().change(DirChange::Remove(from_name));
        }
        Ok(())
    }

    fn dirs(&self) -> Vec<DirRef> {
        let mut found = vec![self.root.clone()];
        let mut next = 0;
        while let Some(dir) = found.get(next).cloned() {
            next += 1;
            found.extend(dir.lock().view.values().filter_map(|node| match node {
                Node::Dir(dir) => Some(dir.clone()),
                Node::File(_) => None,
            }));
        }
        found
    }

    fn files(&self) -> HashMap<*const Mutex<FileData>, FileRef> {
        let mut found = HashMap::new();
        for dir in self.dirs() {
            for node in dir.lock().view.values() {
                if let Node::File(file) = node {
                    found.insert(Arc::as_ptr(file), file.clone());
                }
            }
        }
        found
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.files().values().map(|file| file.lock().len() as u64).sum()
    }

    pub(super) fn sync(&self) {
        self.files().values().for_each(|file| file.lock().sync());
        self.dirs().iter().for_each(|dir| dir.lock().sync());
    }

    pub(super) fn forget_unsynced(&self) {
        self.files().values().for_each(|file| file.lock().forget_unsynced());
        self.dirs().iter().for_each(|dir| dir.lock().forget_unsynced());
    }

    /// What a power loss leaves. One time in four everything unsynced is lost, one time
    /// in four nothing is, otherwise each change has its own fate.
    pub(super) fn after_power_loss(&self, rng: &mut SimRng) -> Tree {
        let loss = match rng.below(4) {
            0 => Loss::All,
            1 => Loss::Nothing,
            _ => Loss::Mixed,
        };
        let mut survivors = HashMap::new();
        Tree { root: dir_after_power_loss(&self.root, rng, loss, &mut survivors) }
    }
}

type Survivors = HashMap<*const Mutex<FileData>, FileRef>;

fn dir_after_power_loss(dir: &DirRef, rng: &mut SimRng, loss: Loss, survivors: &mut Survivors) -> DirRef {
    let dir = dir.lock();
    let kept = match loss {
        Loss::All => 0,
        Loss::Nothing => dir.unsynced.len(),
        Loss::Mixed => usize::try_from(rng.below(dir.unsynced.len() as u64 + 1)).unwrap_or(0),
    };
    let mut names = dir.durable.clone();
    dir.unsynced[..kept].iter().for_each(|change| change.apply(&mut names));
    for node in names.values_mut() {
        *node = match &*node {
            Node::Dir(child) => Node::Dir(dir_after_power_loss(child, rng, loss, survivors)),
            Node::File(file) => Node::File(
                survivors
                    .entry(Arc::as_ptr(file))
                    .or_insert_with(|| Arc::new(Mutex::new(file.lock().after_power_loss(rng, loss))))
                    .clone(),
            ),
        };
    }
    Arc::new(Mutex::new(DirData { view: names.clone(), durable: names, unsynced: Vec::new() }))
}
