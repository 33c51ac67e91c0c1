//! Where an ensemble lives: a directory with one below it for each node, and `demo.json`, which says who there is.
//!
//! - PL1: a directory is taken up as it is: the same nodes, ports and data. Nothing in it is removed.
//! - PL2: a temporary directory goes when this value goes.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::node::Node;
use super::ports::{self, Ports};
use super::{DemoArgs, NODES_MAX};
use crate::tools::Usage;

const NODES_DEFAULT: usize = 3;
const ROSTER_FILE: &str = "demo.json";

/// Who there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Roster {
    /// How many of the nodes do not vote: the last ones.
    observers: usize,
    /// Of all nodes.
    ports: Vec<Ports>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Place {
    directory: PathBuf,
    temporary: bool,
    roster: Roster,
}

impl Place {
    /// Makes or takes up what the arguments ask for, and writes the configurations.
    pub(super) fn prepare(args: &DemoArgs) -> anyhow::Result<Place> {
        let directory = args.dir.as_ref().map_or_else(temporary_directory, |dir| Ok(dir.clone()))?;
        let made = fs::create_dir_all(&directory);
        made.with_context(|| format!("cannot make {}; give another --dir", directory.display()))?;
        // Nodes are started with absolute paths, whatever becomes of this process's directory.
        let directory = directory.canonicalize().with_context(|| directory.display().to_string())?;
        let empty = Roster { observers: 0, ports: Vec::new() };
        let mut place = Place { directory, temporary: args.dir.is_none(), roster: empty };
        place.roster = place.roster_for(args)?;
        place.write()?;
        Ok(place)
    }

    fn roster_for(&self, args: &DemoArgs) -> anyhow::Result<Roster> {
        let path = self.directory.join(ROSTER_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => self.known_roster(args, &path, &text),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let roster = new_roster(args)?;
                let there = (1..).take_while(|n| self.node_directory(*n).join("data").exists()).count();
                if there > roster.ports.len() {
                    bail!(Usage(anyhow!(
                        "{} holds the data of {there} nodes: say --nodes and --observers, {there} together, or give another --dir",
                        self.directory.display()
                    )));
                }
                Ok(roster)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn known_roster(&self, args: &DemoArgs, path: &Path, text: &str) -> anyhow::Result<Roster> {
        let here = path.display();
        let roster: Roster = serde_json::from_str(text).with_context(|| {
            format!("{here} cannot be read; delete it, and say --nodes and --observers, to choose new ports for the same data")
        })?;
        let voters = roster.ports.len().saturating_sub(roster.observers);
        check_counts(voters, roster.observers)
            .map_err(|e| Usage(e.context(format!("{here} is not good"))))?;
        let asked = (args.nodes.unwrap_or(voters), args.observers.unwrap_or(roster.observers));
        if asked != (voters, roster.observers) {
            let observers = roster.observers;
            bail!(Usage(anyhow!(
                "{} holds an ensemble of {voters} nodes and {observers} observers: leave out --nodes and --observers, or give another --dir",
                self.directory.display()
            )));
        }
        ports::check_free(&roster.ports).with_context(|| {
            format!("is another demo running on this directory? Stop it, or delete {here} and say --nodes {voters} --observers {} to choose new ports for the same data", roster.observers)
        })?;
        Ok(roster)
    }

    fn write(&self) -> anyhow::Result<()> {
        let write = |path: PathBuf, text: String| {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        for id in 1..=self.roster.ports.len() {
            let data = self.node_directory(id).join("data");
            fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
            write(data.join("myid"), format!("{id}\n"))?;
            write(self.node_directory(id).join("zoo.cfg"), self.config_of(id))?;
        }
        // Last: a directory without it is made anew.
        write(self.directory.join(ROSTER_FILE), serde_json::to_string(&self.roster)? + "\n")
    }

    fn config_of(&self, id: usize) -> String {
        let mut text = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\n\
             4lw.commands.whitelist=*\nadmin.enableServer=false\n",
            self.node_directory(id).join("data").display(),
            self.roster.ports[id - 1].client,
        );
        let voters = self.roster.ports.len() - self.roster.observers;
        for (index, ports) in self.roster.ports.iter().enumerate() {
            let role = if index < voters { "" } else { ":observer" };
            let (id, Ports { client, quorum, election }) = (index + 1, ports);
            // With the client port, so that the members find each other's (`zabra recover`).
            text += &format!("server.{id}=127.0.0.1:{quorum}:{election}{role};127.0.0.1:{client}\n");
        }
        text
    }

    fn node_directory(&self, id: usize) -> PathBuf {
        self.directory.join(id.to_string())
    }

    /// The nodes, none of them running.
    pub(super) fn nodes(&self) -> anyhow::Result<Vec<Node>> {
        let program = std::env::current_exe().context("cannot find out which program this is")?;
        let node = |(index, ports): (usize, &Ports)| {
            Node::new(index + 1, program.clone(), self.node_directory(index + 1), ports.client)
        };
        Ok(self.roster.ports.iter().enumerate().map(node).collect())
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) const fn is_temporary(&self) -> bool {
        self.temporary
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.directory)
        {
            eprintln!("zabra: {} could not be removed: {error}", self.directory.display());
        }
    }
}

fn new_roster(args: &DemoArgs) -> anyhow::Result<Roster> {
    let (voters, observers) = (args.nodes.unwrap_or(NODES_DEFAULT), args.observers.unwrap_or(0));
    check_counts(voters, observers).map_err(Usage)?;
    Ok(Roster { observers, ports: ports::choose(voters + observers)? })
}

fn check_counts(voters: usize, observers: usize) -> anyhow::Result<()> {
    if voters < 2 {
        bail!(
            "--nodes {voters}: an ensemble has 2 nodes or more, 3 to survive the loss of one; `zabra serve` runs one server alone"
        );
    }
    if voters.saturating_add(observers) > NODES_MAX {
        bail!(
            "{voters} nodes and {observers} observers: at most {NODES_MAX} in all, as a key names one with a single digit"
        );
    }
    Ok(())
}

fn temporary_directory() -> anyhow::Result<PathBuf> {
    let random = getrandom::u64().map_err(|e| anyhow!("the system gives no random bytes: {e}"))?;
    Ok(std::env::temp_dir().join(format!("zabra-demo-{random:016x}")))
}
