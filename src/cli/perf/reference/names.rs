//! The names by which two processes find the same thing, gone as soon as both have it.

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{Reference, kernel, memory};

/// One name for each direction.
pub struct Names {
    names: [String; 2],
    reference: Reference,
    /// Removed with what is in it.
    folder: Option<PathBuf>,
    /// A FIFO is opened at once while somebody holds both of its ends.
    held: Vec<File>,
}

impl Names {
    /// Makes what two processes need to find each other, for messages of `size` bytes.
    pub fn make(reference: Reference, size: usize) -> Result<Names> {
        let unique = format!("ringlane-perf-{}", std::process::id());
        let names = ["there", "back"].map(|end| format!("/{unique}-{end}"));
        let mut made = Names { names, reference, folder: None, held: Vec::new() };
        if matches!(reference, Reference::Fifo | Reference::MappedFile) {
            let folder = std::env::temp_dir().join(&unique);
            fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
            for (name, end) in made.names.iter_mut().zip(["there", "back"]) {
                let path = folder.join(end);
                *name = path.to_str().context("the temporary folder's name")?.into();
            }
            made.folder = Some(folder);
        }
        for name in &made.names {
            match reference {
                Reference::Pipe => {}
                Reference::Fifo => {
                    mkfifo(name.as_str(), Mode::S_IRUSR | Mode::S_IWUSR)
                        .context("making a fifo")?;
                    made.held.push(OpenOptions::new().read(true).write(true).open(name)?);
                }
                Reference::Queue => kernel::make_queue(name, size)?,
                Reference::Memory | Reference::MappedFile => memory::make(reference, name, size)?,
            }
        }
        Ok(made)
    }

    /// Both names.
    pub fn words(&self) -> [&str; 2] {
        [&self.names[0], &self.names[1]]
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for name in &self.names {
            // What has not been made yet cannot be removed; a folder goes with its files.
            match self.reference {
                Reference::Queue => drop(nix::mqueue::mq_unlink(name.as_str())),
                Reference::Memory => memory::unlink(name),
                Reference::Pipe | Reference::Fifo | Reference::MappedFile => {}
            }
        }
        if let Some(folder) = &self.folder
            && let Err(error) = fs::remove_dir_all(folder)
        {
            log::warn!("{} is left behind: {error}", folder.display());
        }
    }
}
