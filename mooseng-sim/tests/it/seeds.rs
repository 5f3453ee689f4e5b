//! Seeds that once failed, with what they found. They stay, whatever becomes of the worlds behind them.

use mooseng_sim::Shape;

/// Run by every test run.
pub(crate) const KEPT: &[(u64, Shape)] = &[
    // A chunkserver that started on a full disk hid the copies it had found dirty.
    (101, Shape::One),
    (70, Shape::Three),
    // A copy made before its server was killed, and synced after, did not have its name on the disk.
    (37, Shape::Three),
    (39, Shape::Three),
    (72, Shape::Three),
    (114, Shape::Three),
    (128, Shape::Three),
    (165, Shape::Three),
    // A sync after a restart answered for writes that the power loss had taken.
    (386, Shape::Three),
    (575, Shape::Three),
    // A fresh copy that vanished with the power was made anew by the next write under the same lease.
    (10, Shape::Three),
    (145, Shape::Three),
    (368, Shape::Three),
    (375, Shape::Three),
    // Twice started after a power loss, a chunkserver had forgotten that a lease was interrupted, and answered its sync.
    (961_532_310_169, Shape::Five),
    // A learner became a voter before its snapshot had arrived; then the only master with the state was lost.
    (208_530_284_579, Shape::Three),
    // A master that led, or stood for election, when it learned of its own removal.
    (18, Shape::Five),
    // A segment of the log made before its master was killed, and appended to after, did not have its name on the disk.
    (840_806_868_890, Shape::Three),
    // A client waited with a small write for a lease that only the masters knew of, and with giving it back for the write.
    (608_920_376_028, Shape::Five),
    // A master took a snapshot in the place of the entry that raised the level, and left a chunkserver connected that did
    // not know it.
    (667, Shape::Mixed),
    // The world itself restarted a server with a dirty copy after bits of it had rotted, which no server can tell.
    (700_000_000_952, Shape::Mixed),
    // The copies differed where a dead writer had left something within the length, and the first server was away for a while.
    (1072, Shape::Mixed),
    // A master led a cell and had nothing of the root's group yet: it named no servers for a chunk, whose copies then passed for
    // lost.
    (800_000_000_119, Shape::ThreeCells),
    (785, Shape::ThreeCells),
    // A copy that was settled was dirty until the next sync, and in doubt after the next crash.
    (506, Shape::Mixed),
    // What a server that told of all its copies did not name any more was waited for without an end.
    (51, Shape::ThreeCells),
    // A writer went on without one server; then the other lost its disk, and the copy with all that was committed was left aside.
    (1680, Shape::Healing),
];
