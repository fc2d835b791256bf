// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Other handles, other programs, leaks and repairs.
extension Life {
    /// While one handle writes, nobody else can open the image; afterwards everybody can.
    mutating func meetSecondHandle() throws {
        let name = sequence.newName()
        sequence.note("second handle, create \(name)")
        let (path, story) = (sequence.disk.path, sequence.story)
        var image = try Image.open(path, for: .writing)
        for use in [FileStorage.Access.writing, .reading] {
            var code: QCOW2Error.Code?
            do throws(QCOW2Error) { _ = try Image.open(path, for: use) } catch { code = error.code }
            #expect(code == .inUse, "\(story): a second handle for \(use)")
        }
        let theirs = try Tool.run("qemu-io", ["-f", "qcow2", "-c", "write 0 512", path])
        #expect(theirs.status != 0, "\(story): qemu-io wrote beside us")
        do throws(QCOW2Error) {
            try image.createSnapshot(named: name)
        } catch {
            guard error.code == .limitExceeded, sequence.disk.layout.refcountBits <= 4 else { throw error }
            return
        }
        sequence.disk.created(name)
    }

    /// Several verbs and writes by one value, which is never opened anew.
    mutating func holdSession() throws {
        guard sequence.disk.backing.isEmpty, sequence.disk.layout.version == 3 else { return }
        let extended = sequence.disk.layout.features.contains(.extendedL2)
        let unit = extended ? sequence.disk.layout.clusterSize / 32 : sequence.disk.layout.clusterSize
        sequence.note("session")
        var active = sequence.disk.active
        var created: [(name: String, content: [UInt8])] = []
        var image = try Image.open(sequence.disk.path, for: .writing)
        image.guestWriteOptions.bitmaps = .drop
        for _ in 0..<Int.random(in: 2...5, using: &sequence.random) {
            let random = GuestChange.random(
                active.count, clusterSize: sequence.disk.layout.clusterSize, using: &sequence.random)
            // What a discard leaves of subclusters is looked at elsewhere.
            if case .discard = random, extended { continue }
            sequence.note(random.description)
            try random.perform(on: &image)
            random.apply(to: &active, unit: unit)
            guard Bool.random(using: &sequence.random) else { continue }
            let name = sequence.newName()
            do throws(QCOW2Error) {
                try image.createSnapshot(named: name)
                sequence.note("create \(name)")
                created.append((name, active))
            } catch {
                guard error.code == .limitExceeded, sequence.disk.layout.refcountBits <= 4 else { throw error }
            }
        }
        try image.flush()
        sequence.disk.wrote(active)
        for (name, content) in created { sequence.disk.created(name, as: content) }
    }

    /// Somebody leaves a cluster with a refcount and no reference, behind the end of the file; a repair frees it.
    mutating func leakAndRepair() throws {
        guard sequence.disk.layout.refcountBits == 16 else { return }
        let path = sequence.disk.path
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        func number(_ offset: Int) -> Int { bytes[offset..<(offset + 8)].reduce(0) { $0 << 8 | Int($1) } }
        let cluster = bytes.count / sequence.disk.layout.clusterSize + 2
        let perBlock = sequence.disk.layout.clusterSize / 2
        let entry = number(48) + cluster / perBlock * 8
        guard entry + 8 <= bytes.count, number(entry) != 0 else { return }
        let place = number(entry) + cluster % perBlock * 2
        guard place + 2 <= bytes.count, bytes[place] == 0, bytes[place + 1] == 0 else { return }
        sequence.note("leak of cluster \(cluster)")
        bytes[place + 1] = 1
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let check = try Tool.run(Tool.qsnap, ["check", path])
        #expect(check.status == 3, "\(sequence.story): \(check.output)")
        let repair = try Tool.run(Tool.qsnap, ["check", path, "--repair", "leaks"])
        #expect(repair.status == 0, "\(sequence.story): \(repair.output)\(repair.errors)")
    }

    /// A repair of what is in order, by us or by QEMU, changes nothing.
    mutating func repair() throws {
        let path = sequence.disk.path
        let before = try Data(contentsOf: URL(fileURLWithPath: path))
        if Bool.random(using: &sequence.random) {
            sequence.note("their repair")
            try Tool.check("qemu-img", ["check", "-q", "-f", "qcow2", "-r", "all", path])
        } else {
            sequence.note("our repair")
            try Tool.check(Tool.qsnap, ["check", path, "--repair", "all"])
            #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before, "\(sequence.story)")
        }
    }
}
