// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

public import QCOW2
public import QCOW2Testing

/// A random life of an image that our library makes, fills, snapshots and resizes by itself, beside a model of what
/// every state must read as.
public struct WriteSequence {
    /// What the image was made as.
    public let new: NewImage
    /// What the active state must read as.
    public private(set) var active: [UInt8]
    /// What each snapshot must read as, by name, with its own size.
    public private(set) var snapshots: [String: [UInt8]] = [:]
    private var random: SplitMix64
    private var steps: [String] = []
    private var nextNumber = 1
    private let seed: UInt64

    /// What to say when a step fails.
    public var story: String {
        "seed \(seed), version \(new.version), clusters of \(new.clusterSize), \(new.refcountBits)-bit refcounts"
            + (new.hasExtendedL2 ? ", extended" : "") + (new.preallocation == .metadata ? ", preallocated" : "")
            + ", \(new.virtualSize) bytes: \(steps.joined(separator: "; "))"
    }

    /// A random geometry.
    public init(seed: UInt64) {
        self.seed = seed
        random = SplitMix64(seed: seed)
        let clusterSize = [512, 512, 1024, 4096, 16384, 65536].randomElement(using: &random) ?? 512
        let clusterCount = clusterSize <= 1024 ? Int.random(in: 3...300, using: &random) : 12
        var new = NewImage(virtualSize: UInt64(clusterCount * clusterSize))
        new.virtualSize -= UInt64.random(in: 0...2, using: &random) * 512
        new.clusterSize = clusterSize
        new.version = Int.random(in: 0..<4, using: &random) == 0 ? 2 : 3
        if new.version == 3 {
            new.refcountBits = [1, 2, 4, 8, 16, 32, 64].randomElement(using: &random) ?? 16
            new.hasExtendedL2 = clusterSize >= 16384 && Bool.random(using: &random)
        }
        if Int.random(in: 0..<4, using: &random) == 0 { new.preallocation = .metadata }
        self.new = new
        active = [UInt8](repeating: 0, count: Int(new.virtualSize))
    }

    /// Makes the image.
    public func makeImage() throws(QCOW2Error) -> Image<InMemoryStorage> {
        var image = try Image.create(new, in: InMemoryStorage([]))
        // Small, so that commits happen in between.
        if seed % 3 == 0 { image.guestWriteOptions.cacheBudget = 8 * new.clusterSize }
        return image
    }

    /// Does one random thing.
    ///
    /// - Returns: Whether everything is flushed now.
    public mutating func step(_ image: inout Image<InMemoryStorage>) throws(QCOW2Error) -> Bool {
        switch Int.random(in: 0..<16, using: &random) {
        case 0..<8:
            let unit = new.hasExtendedL2 ? new.clusterSize / 32 : new.clusterSize
            for _ in 0..<Int.random(in: 1...5, using: &random) {
                let change = GuestChange.random(active.count, clusterSize: new.clusterSize, using: &random)
                steps.append(change.description)
                try change.perform(on: &image)
                change.apply(to: &active, unit: unit)
            }
            return false
        case 8..<10:
            steps.append("flush")
            try image.flush()
            return true
        case 10..<12:
            let name = newName()
            guard
                try done(
                    "create \(name)", &image, { image throws(QCOW2Error) in try image.createSnapshot(named: name) })
            else { return false }
            snapshots[name] = active
        case 12:
            guard let name = snapshots.keys.sorted().randomElement(using: &random) else { return false }
            let saved = Bool.random(using: &random) ? newName() : nil
            guard
                try done(
                    "apply \(name)", &image,
                    { image throws(QCOW2Error) in try image.applySnapshot(.name(name), savingCurrentAs: saved) })
            else { return false }
            if let saved { snapshots[saved] = active }
            active = snapshots[name] ?? []
        case 13:
            let names = Array(snapshots.keys.sorted().shuffled(using: &random).prefix(2))
            guard !names.isEmpty else { return false }
            _ = try done(
                "delete \(names)", &image,
                { image throws(QCOW2Error) in try image.deleteSnapshots(names.map { .name($0) }) })
            for name in names { snapshots[name] = nil }
        default: return try resize(&image)
        }
        return true
    }

    private mutating func resize(_ image: inout Image<InMemoryStorage>) throws(QCOW2Error) -> Bool {
        guard new.version == 3 || snapshots.isEmpty else { return false }
        let unit = new.clusterSize / 512
        let sectors = max(1, active.count / 512 + Int.random(in: (-8 * unit)...(8 * unit), using: &random))
        guard
            try done(
                "resize to \(sectors * 512)", &image,
                { image throws(QCOW2Error) in
                    try image.resize(to: UInt64(sectors * 512), allowingDataLoss: true)
                })
        else { return false }
        active = Array(active.prefix(sectors * 512))
        active.append(contentsOf: repeatElement(0, count: sectors * 512 - active.count))
        return !image.hasUnflushedWrites
    }

    /// Carries a verb out; false when narrow refcounts don't allow it, which changes nothing.
    private mutating func done<Result>(
        _ step: String, _ image: inout Image<InMemoryStorage>,
        _ body: (inout Image<InMemoryStorage>) throws(QCOW2Error) -> Result
    ) throws(QCOW2Error) -> Bool {
        steps.append(step)
        do throws(QCOW2Error) {
            _ = try body(&image)
            return true
        } catch {
            guard error.code == .limitExceeded, new.refcountBits <= 4 else { throw error }
            steps.append("refused")
            return false
        }
    }

    private mutating func newName() -> String {
        defer { nextNumber += 1 }
        return "s\(nextNumber)"
    }

    /// Where a state doesn't read as the model says, if anywhere.
    public func mismatch(_ image: borrowing Image<InMemoryStorage>) throws(QCOW2Error) -> String? {
        if image.virtualSize != UInt64(active.count) { return "the size is \(image.virtualSize)" }
        if try image.read(active.count, at: GuestOffset(0)) != active { return "the active state differs" }
        for (name, model) in snapshots {
            let snapshot = try image.snapshot(.name(name))
            if snapshot.diskSize != UInt64(model.count) { return "snapshot \(name) has another size" }
            if try image.read(model.count, at: GuestOffset(0), of: .snapshot(.name(name))) != model {
                return "snapshot \(name) differs"
            }
        }
        return image.snapshots.count == snapshots.count ? nil : "there are \(image.snapshots.count) snapshots"
    }
}
