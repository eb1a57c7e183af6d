//! Reads the file again whenever it, or a file that it names, has changed.
//!
//! Looks at the files each second instead of asking the system for notices: these do not exist on every file system,
//! and know nothing of a link somewhere on the way that points elsewhere now, which is how Kubernetes' volumes change.
//! A thread of its own does that: a look may take long where the files are far away, and handing each to another thread
//! would cost an idle gateway more than the look.

use crate::source::{
    Tables,
    file::{
        error::FileError,
        load::{Loaded, load},
    },
};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tokio::sync::mpsc;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one content of a file from another, links followed: device, inode, size, change time. `None`: not there.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// A file that is followed, and those it names.
struct Followed {
    path: PathBuf,
    named: Vec<PathBuf>,
    stamps: Vec<Stamp>,
    problem: Option<String>,
}

/// Reads `path` into the tables, and gives the work of keeping them equal to it.
///
/// # Errors
/// When the file cannot be used. Later such a file is told, and what was read before stays in force.
pub fn start(path: &Path, tables: Tables) -> Result<impl Future<Output = ()> + Send + 'static, FileError> {
    let first = load(path)?;
    let (path, named) = (path.to_owned(), first.named.clone());
    let mut followed = Followed { path, named, stamps: Vec::new(), problem: None };
    // Read once more, now that it is known which files to look at before.
    let loaded = match followed.look() {
        Some(Ok(again)) => again,
        _ => first,
    };
    loaded.publish(&tables);
    let path = followed.path.clone();
    let (sender, news) = mpsc::channel(1);
    let thread = thread::Builder::new().name("config".to_owned()).spawn(move || watch(followed, &sender));
    thread.map_err(|cause| FileError::Read { path: path.clone(), cause })?;
    Ok(follow(path, news, tables))
}

/// Looks until nobody wants to know.
fn watch(mut followed: Followed, sender: &mpsc::Sender<Result<Loaded, String>>) {
    while !sender.is_closed() {
        thread::sleep(LOOK_EVERY);
        if let Some(news) = followed.look()
            && sender.blocking_send(news).is_err()
        {
            return;
        }
    }
}

async fn follow(path: PathBuf, mut news: mpsc::Receiver<Result<Loaded, String>>, tables: Tables) {
    while let Some(news) = news.recv().await {
        match news {
            Ok(loaded) => {
                loaded.publish(&tables);
                tables.problem.send_replace(None);
                tracing::info!(path = %path.display(), "configuration read");
            }
            Err(problem) if tables.problem.borrow().as_ref() != Some(&problem) => {
                tracing::warn!(
                    problem,
                    "the changed configuration is refused; what was read before stays in force"
                );
                tables.problem.send_replace(Some(problem));
            }
            Err(_) => {}
        }
    }
}

impl Followed {
    /// What is to be read anew, or why it cannot be; `None` when nothing has changed. While there is a problem,
    /// everything is read each time: what was missing may be there now.
    fn look(&mut self) -> Option<Result<Loaded, String>> {
        let files = [&self.path].into_iter().chain(&self.named);
        let stamps: Vec<Stamp> = files.map(|path| stamp(path)).collect();
        if stamps == self.stamps && self.problem.is_none() {
            return None;
        }
        let news = load(&self.path).map_err(|e| e.to_string());
        self.problem = news.as_ref().err().cloned();
        self.stamps = match &news {
            // Taken before it was read; where other files are named now, they are read once more.
            Ok(loaded) if loaded.named == self.named => stamps,
            _ => Vec::new(),
        };
        if let Ok(loaded) = &news {
            self.named.clone_from(&loaded.named);
        }
        Some(news)
    }
}

fn stamp(path: &Path) -> Stamp {
    let about = fs::metadata(path).ok()?;
    Some((about.dev(), about.ino(), about.size(), about.ctime(), about.ctime_nsec()))
}
