// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension QemuImg {
    /// What a failure of `compare` is, whose status 1 means that the images differ.
    private static func failing<Result>(
        _ status: Int32, _ body: () throws(Refusal) -> Result
    ) throws(Refusal) -> Result {
        do throws(Refusal) {
            return try body()
        } catch {
            throw error.withStatus(status)
        }
    }

    /// `qemu-img compare`.
    static func compare(_ words: [[UInt8]], _ context: Context) throws(Refusal) -> Int32 {
        var formats: [[UInt8]?] = [nil, nil]
        var (isStrict, isQuiet, sharesByForce) = (false, false, false)
        let parsed = try operands(
            words, context, short: "hf:F:T:pqsU", long: [GetoptLong.LongOption("force-share", as: "U")]
        ) { (option, argument) throws(Refusal) in
            switch option {
            case "f": formats[0] = argument
            case "F": formats[1] = argument
            case "s": isStrict = true
            case "q": isQuiet = true
            case "U": sharesByForce = true
            default: return
            }
        }
        guard let (operands, hasOptions) = parsed else { return 0 }
        guard operands.count == 2 else {
            throw .usage("Expecting two image file names", of: "compare", context.version)
        }
        if hasOptions, formats[0] != nil || formats[1] != nil {
            throw Refusal("--image-opts and --format are mutually exclusive", status: 2)
        }
        var disks: [ComparedDisk] = []
        for (file, format) in zip(operands, formats) {
            disks.append(
                try failing(2) { () throws(Refusal) in
                    let source = try Source(
                        file, format: format, hasOptions: hasOptions, sharesByForce: sharesByForce)
                    return ComparedDisk(view: try source.openView())
                })
        }
        func say(_ text: ByteText) { if !isQuiet { Console.writeOutput(text) } }
        let (first, second) = (disks[0], disks[1])
        if isStrict, first.byteCount != second.byteCount {
            say("Strict mode: Image size mismatch!\n")
            return 1
        }
        let difference = try failing(4) { () throws(Refusal) in try first.difference(from: second, isStrict: isStrict) }
        switch difference {
        case .content(let offset):
            // The shorter disk ends before: what is behind is compared with zeros.
            if offset >= min(first.byteCount, second.byteCount) { say("Warning: Image size mismatch!\n") }
            say("Content mismatch at offset \(offset)!\n")
            return 1
        case .status(let offset):
            say("Strict mode: Offset \(offset) block status mismatch!\n")
            return 1
        case nil:
            if first.byteCount != second.byteCount { say("Warning: Image size mismatch!\n") }
            say("Images are identical.\n")
            return 0
        }
    }
}

extension Refusal {
    fileprivate func withStatus(_ status: Int32) -> Refusal { Refusal(lines: lines, status: status) }
}

/// A disk to compare: a view of an image, or a file.
private struct ComparedDisk {
    enum Difference {
        case content(UInt64)
        case status(UInt64)
    }

    let byteCount: UInt64
    private let view: DiskView

    init(view: DiskView) {
        self.view = view
        byteCount = view.virtualSize / 512 * 512
    }

    /// Stretches that are stored alike, one after the other.
    private struct Stretches {
        private var cursor: ExtentCursor
        private(set) var current: Extent?

        init(_ view: DiskView) throws(Refusal) {
            cursor = view.extents()
            try advance()
        }

        mutating func advance() throws(Refusal) {
            do throws(QCOW2Error) {
                current = try cursor.next()
            } catch {
                throw Refusal("Sector allocation test failed for disk: \(error.systemReason)", status: 3)
            }
        }

        /// Moves on to the stretch that holds an offset.
        mutating func seek(_ offset: UInt64) throws(Refusal) {
            while let extent = current, extent.end.rawValue <= offset { try advance() }
        }

        var isData: Bool { current.map { $0.kind == .data || $0.kind == .compressed || $0.kind == .unopened } ?? false }
        var status: [Bool] { [isData, current.map { $0.kind != .unallocated } ?? false] }
    }

    /// The first difference; with zeros behind the shorter disk's end.
    func difference(from other: ComparedDisk, isStrict: Bool) throws(Refusal) -> Difference? {
        var (mine, theirs) = (try Stretches(view), try Stretches(other.view))
        let end = max(byteCount, other.byteCount)
        var offset: UInt64 = 0
        while offset < end {
            try mine.seek(offset)
            try theirs.seek(offset)
            let stops = [mine.current?.end.rawValue, theirs.current?.end.rawValue].compactMap { $0 } + [end]
            let stop = min(stops.min() ?? end, offset + 1 << 20)
            if isStrict, mine.status != theirs.status { return .status(offset) }
            if mine.isData || theirs.isData {
                let count = Int(stop - offset)
                let (left, right) = (try read(count, at: offset), try other.read(count, at: offset))
                if left != right, let index = left.indices.first(where: { left[$0] != right[$0] }) {
                    return .content((offset + UInt64(index)) / 512 * 512)
                }
            }
            offset = stop
        }
        return nil
    }

    private func read(_ count: Int, at offset: UInt64) throws(Refusal) -> [UInt8] {
        let inside = offset < byteCount ? min(UInt64(count), byteCount - offset) : 0
        do throws(QCOW2Error) {
            let bytes = try view.read(Int(inside), at: GuestOffset(offset))
            return bytes + [UInt8](repeating: 0, count: count - Int(inside))
        } catch {
            throw Refusal("Error while reading offset \(offset): \(error.systemReason)")
        }
    }
}
