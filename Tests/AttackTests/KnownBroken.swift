// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What an attack may break; each class is a promise.
enum AttackClass: String, CaseIterable, Sendable {
    /// A signal or a trap ended the command.
    case endedBySignal
    /// Time in proportion to what a table describes, not to what the file holds.
    case time
    /// Memory beyond the budget.
    case memory
    /// An exit status that the help doesn't name.
    case status
    /// The file changed although the exit status says failure.
    case failureChangesFile
    /// Findings after a verb that weren't there before it, by our own check.
    case newFindings
    /// The same, by qemu-img's.
    case newFindingsForQEMU
    /// A verb changed the content of a state that it wasn't to change.
    case stateChanged
    /// A repair that frees key material of LUKS.
    case luksLength
    /// A snapshot whose L1 table is too small for its disk passes as valid.
    case snapshotTable
    /// `--repair leaks` erases what could be got back.
    case remnants
    /// A signal doesn't end a command at once.
    case deafToSignals
}

/// The classes that are known to be broken: a violation is counted and printed, and fails nothing.
///
/// A class leaves the list with the change that mends it. Nothing is to be added.
let knownBroken: Set<AttackClass> = []
