// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A command that writes.
enum AttackVerb: String, CaseIterable, Sendable {
    case create, apply, applyAndSave, delete, deleteAll, rename, repairLeaks, repairAll
    case theirCreate, theirApply, theirDelete, theirResize, theirRepairLeaks, theirRepairAll

    /// The words of the command.
    func words(_ path: String, snapshot id: String?, _ name: String?) -> [String]? {
        switch self {
        case .create: return ["create", path, "attacked"]
        case .deleteAll: return ["delete", path, "--all"]
        case .repairLeaks: return ["check", path, "--repair", "leaks"]
        case .repairAll: return ["check", path, "--repair", "all"]
        case .theirCreate: return ["qemu-img", "snapshot", "-c", "attacked", path]
        case .theirResize: return ["qemu-img", "resize", "-f", "qcow2", path, "+4M"]
        case .theirRepairLeaks: return ["qemu-img", "check", "-f", "qcow2", "-r", "leaks", path]
        case .theirRepairAll: return ["qemu-img", "check", "-f", "qcow2", "-r", "all", path]
        default: break
        }
        guard let id, let name else { return nil }
        switch self {
        case .apply: return ["apply", path, "id:" + id]
        case .applyAndSave: return ["apply", path, "id:" + id, "--save-current", "saved"]
        case .delete: return ["delete", path, "id:" + id]
        case .rename: return ["rename", path, "id:" + id, "renamed"]
        case .theirApply: return ["qemu-img", "snapshot", "-a", name, path]
        default: return ["qemu-img", "snapshot", "-d", name, path]
        }
    }

    /// Whether the verb repairs.
    var isRepair: Bool {
        [.repairLeaks, .repairAll, .theirRepairLeaks, .theirRepairAll].contains(self)
    }

    /// Whether another tree refers to what was damaged, afterwards.
    var addsTree: Bool { [.create, .apply, .applyAndSave, .theirCreate, .theirApply].contains(self) }

    /// Exit statuses after which the file must be as before.
    func isFailure(_ status: Int32) -> Bool {
        // A repair that leaves something says 2 or 3.
        isRepair ? ![0, 2, 3].contains(status) : status != 0
    }

    /// Whether the verb may change a state, or takes it away.
    func touches(_ state: String) -> Bool {
        switch self {
        case .apply, .applyAndSave, .theirApply, .theirResize: state == "active"
        case .delete, .deleteAll, .rename, .theirDelete: state != "active"
        default: false
        }
    }
}
