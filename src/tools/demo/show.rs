//! The table.

use super::ask::Report;
use super::node::{Node, NodeState};

const UNKNOWN: &str = "-";

/// What a line of the table is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) id: usize,
    pub(super) process_id: Option<u32>,
    pub(super) state: NodeState,
    /// What the node says, or said last.
    pub(super) report: Option<Report>,
}

impl Row {
    fn of(node: &Node) -> Row {
        let report = node.report().or(node.last_report());
        Row { id: node.id(), process_id: node.process_id(), state: node.state(), report }
    }
}

/// Who leads: the one in the newest epoch, should an older one not know yet that it is over.
pub(super) fn leader(nodes: &[Node]) -> Option<usize> {
    let leading = nodes.iter().enumerate().filter(|(_, node)| node.state() == NodeState::Leader);
    leading.max_by_key(|(_, node)| node.report().map(|report| report.epoch)).map(|(index, _)| index)
}

/// Every node serves in the leader's epoch, and has all that the leader has; under load, which goes on between two questions, the epoch is
/// enough.
pub(super) fn all_in_step(nodes: &[Node], load: bool) -> bool {
    let Some(leads) = leader(nodes).and_then(|index| nodes[index].report()) else { return false };
    let in_step = |report: Report| report.epoch == leads.epoch && (load || report.zxid == leads.zxid);
    nodes.iter().all(|node| node.report().is_some_and(in_step))
}

/// A head and one line for each node.
pub(super) fn table(nodes: &[Node]) -> Vec<String> {
    let leads = leader(nodes).and_then(|index| nodes[index].report());
    lines(&nodes.iter().map(Row::of).collect::<Vec<_>>(), leads)
}

pub(super) fn lines(rows: &[Row], leads: Option<Report>) -> Vec<String> {
    let head = ["node", "pid", "state", "epoch", "zxid", "lag", "flush p99", "clients"];
    let mut lines = vec![line(&head.map(str::to_owned))];
    lines.extend(rows.iter().map(|row| line(&cells(row, leads))));
    lines
}

fn cells(row: &Row, leads: Option<Report>) -> [String; 8] {
    let unknown = || UNKNOWN.to_owned();
    let said = |cell: fn(&Report) -> String| row.report.as_ref().map_or_else(unknown, cell);
    let lag = leads.zip(row.report).map_or_else(unknown, |(leads, report)| lag(leads, report));
    // These two are of the moment; epoch and zxid outlive the process.
    let now = |cell: fn(&Report) -> String| if is_serving(row.state) { said(cell) } else { unknown() };
    [
        row.id.to_string(),
        row.process_id.map_or_else(unknown, |id| id.to_string()),
        row.state.name().to_owned(),
        said(|report| report.epoch.to_string()),
        said(|report| report.zxid.to_string()),
        lag,
        now(|report| format!("{} µs", report.flush_p99_us)),
        now(|report| report.clients.to_string()),
    ]
}

const fn is_serving(state: NodeState) -> bool {
    matches!(state, NodeState::Leader | NodeState::Follower | NodeState::Observer)
}

/// Transactions behind the leader. Between epochs they cannot be counted: at least those of the leader's.
fn lag(leads: Report, report: Report) -> String {
    if report.zxid.epoch() >= leads.zxid.epoch() {
        leads.zxid.0.saturating_sub(report.zxid.0).to_string()
    } else {
        format!("{}+", leads.zxid.counter())
    }
}

fn line(cells: &[String; 8]) -> String {
    let [node, pid, state, epoch, zxid, lag, flush, clients] = cells;
    format!("{node:>4}  {pid:>7}  {state:<8}  {epoch:>5}  {zxid:>12}  {lag:>7}  {flush:>10}  {clients:>7}")
}
