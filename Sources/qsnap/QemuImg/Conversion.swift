// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// Disks, one behind the other, on their way into a new one.
struct Conversion {
    let views: [DiskView]
    private let keepsTarget: Bool
    private let skipsZeros: Bool
    private let meter: PercentMeter
    let byteCount: UInt64

    init(_ views: [DiskView], keepsTarget: Bool, skipsZeros: Bool, meter: PercentMeter) {
        self.views = views
        self.keepsTarget = keepsTarget
        self.skipsZeros = skipsZeros
        self.meter = meter
        byteCount = views.reduce(0) { $0.addingReportingOverflow($1.sectorByteCount).partialValue }
    }

    /// Writes everything.
    func run<Target: ConvertTarget & ~Copyable>(to target: inout Target) throws(Refusal) {
        do throws(QCOW2Error) {
            if keepsTarget, try target.byteCount() < byteCount {
                throw QCOW2Error(.outsideDisk, "output file is smaller than input file")
            }
        } catch {
            throw error.code == .outsideDisk
                ? Refusal("output file is smaller than input file") : Refusal("\(error.systemReason)")
        }
        var meter = meter
        meter.start()
        do throws(QCOW2Error) {
            var start: UInt64 = 0
            for view in views {
                try copy(view, to: &target, at: start, &meter)
                start += view.sectorByteCount
            }
            try target.finish()
        } catch {
            throw Refusal("error while converting: \(error.systemReason)")
        }
        meter.finish()
    }

    private func copy<Target: ConvertTarget & ~Copyable>(
        _ view: DiskView, to target: inout Target, at start: UInt64, _ meter: inout PercentMeter
    ) throws(QCOW2Error) {
        var cursor = view.extents(in: GuestOffset(0)..<GuestOffset(view.sectorByteCount))
        while let extent = try cursor.next() {
            let isZero = extent.kind == .zero || extent.kind == .unallocated
            var offset = extent.start.rawValue
            if isZero, skipsZeros {
                // A new disk reads as zeros where nothing is written.
                if keepsTarget { try target.writeZeros(at: start + offset, count: extent.byteCount) }
                offset = extent.end.rawValue
            }
            while offset < extent.end.rawValue {
                let count = Int(min(1 << 20, extent.end.rawValue - offset))
                let bytes =
                    isZero ? [UInt8](repeating: 0, count: count) : try view.read(count, at: GuestOffset(offset))
                try write(bytes, to: &target, at: start + offset)
                offset += UInt64(count)
                meter.show(start + offset, of: byteCount)
            }
        }
    }

    /// Writes what isn't zero, or all of it into a disk that may hold something else.
    private func write<Target: ConvertTarget & ~Copyable>(
        _ bytes: [UInt8], to target: inout Target, at offset: UInt64
    ) throws(QCOW2Error) {
        guard skipsZeros, !keepsTarget else { return try target.write(bytes.span, at: offset) }
        let blockByteCount = target.blockByteCount
        var position = 0
        while position < bytes.count {
            // Blocks of the target, wherever the bytes begin.
            func end(_ start: Int) -> Int {
                let place = Int((offset + UInt64(start)) % UInt64(blockByteCount))
                return min(start + blockByteCount - place, bytes.count)
            }
            func isZero(_ start: Int) -> Bool { bytes[start..<end(start)].allSatisfy { $0 == 0 } }
            var stop = position
            while stop < bytes.count, !isZero(stop) { stop = end(stop) }
            if stop > position {
                try target.write(bytes.span.extracting(position..<stop), at: offset + UInt64(position))
            }
            position = stop < bytes.count ? end(stop) : stop
        }
    }
}

extension Conversion {
    /// Writes the disk as an image of compressed clusters, of the one layout that the library's export has.
    func compress(to target: [UInt8], as new: NewImage, saying prefix: [UInt8]) throws(Refusal) {
        var usual = NewImage(virtualSize: new.virtualSize)
        usual.compressionType = new.compressionType
        guard views.count == 1, let view = views.first, new == usual else {
            throw Refusal("convert -c isn't supported by qsnap with several sources, or options but compression_type")
        }
        // Finds out whether the file may be written over, as without compression.
        _ = try QemuImg.createImage(new, at: target, saying: prefix, reading: views).close()
        let path = try Source(target, hasOptions: false, sharesByForce: false).path
        var options = ExportOptions()
        options.format = .qcow2(compression: new.compressionType)
        options.replacesExisting = true
        options.flushes = true
        options.progress = { _ in Interruption.signal == 0 }
        Interruption.catchSignals()
        meter.start()
        do throws(QCOW2Error) {
            try view.export(to: path, options: options)
        } catch {
            throw Refusal("error while converting: \(error.systemReason)")
        }
        meter.finish()
    }
}

extension DiskView {
    /// Bytes of the disk's whole sectors, which are all that qemu-img sees.
    fileprivate var sectorByteCount: UInt64 { virtualSize / 512 * 512 }
}

/// The percentage that `-p` shows, on one line of standard output.
struct PercentMeter {
    let isShown: Bool
    private var shown = 0.0

    init(isShown: Bool) { self.isShown = isShown }

    func start() { show(0) }

    /// Shows how far it is, in steps of at least one percent.
    mutating func show(_ done: UInt64, of all: UInt64) {
        let percent = all > 0 ? Double(done) * 100 / Double(all) : 100
        guard percent >= shown + 1 else { return }
        shown = percent
        show(percent)
    }

    func finish() {
        show(100)
        if isShown { Console.writeOutput("\n") }
    }

    private func show(_ percent: Double) {
        if isShown { Console.writeOutput("    (\(formatted("%3.2f", percent))/100%)\r") }
    }
}
