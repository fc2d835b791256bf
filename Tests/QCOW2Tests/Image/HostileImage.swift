// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import Testing

/// An image that somebody made to do harm, and how it must be refused.
struct HostileImage: CustomTestStringConvertible, Sendable {
    let testDescription: String
    let base: Base
    let operation: Operation
    let code: QCOW2Error.Code
    let offset: UInt64?
    /// What the message must name.
    let field: String
    private let change: @Sendable (inout ImageBytes) -> Void

    /// What the image was before.
    enum Base: String {
        case version2 = "v2-512"
        case version3 = "v3-512"
        case clusters4K = "v3-4k"
        case extended = "v3-16k-extended"
        case bitmaps = "v3-512-bitmaps"
        case refcount64 = "v3-512-refcount64"
        case nothing
    }

    enum Operation: String {
        case open, read, readSnapshot, create, apply, delete, rename

        func perform<S: Storage & ~Copyable>(on image: inout Image<S>) throws(QCOW2Error) {
            switch self {
            case .open: break
            case .read: _ = try image.read(Int(image.virtualSize), at: GuestOffset(0))
            case .readSnapshot: _ = try image.read(512, at: GuestOffset(0), of: .snapshot(.name("first")))
            case .create: try image.createSnapshot(named: "new")
            case .apply: try image.applySnapshot(.name("first"))
            case .delete: try image.deleteSnapshots([.name("first")])
            case .rename: try image.renameSnapshot(.name("first"), to: "renamed")
            }
        }
    }

    init(
        _ name: String, on base: Base = .version3, refused operation: Operation = .open,
        _ code: QCOW2Error.Code = .corrupt, at offset: UInt64?, naming field: String,
        _ change: @escaping @Sendable (inout ImageBytes) -> Void
    ) {
        testDescription = "\(name): \(operation)"
        self.base = base
        self.operation = operation
        self.code = code
        self.offset = offset
        self.field = field
        self.change = change
    }

    func bytes() throws -> [UInt8] {
        var image = ImageBytes(bytes: base == .nothing ? [] : try Fixtures.bytes("\(base.rawValue).qcow2"))
        change(&image)
        return image.bytes
    }
}

/// Section "7.2 Malformed input".
@Suite struct HostileImageTests {
    static let all =
        HostileImage.headers + HostileImage.headerSizes + HostileImage.features + HostileImage.extensions
        + HostileImage.encryption + HostileImage.snapshots + HostileImage.l1Tables + HostileImage.l2Tables
        + HostileImage.compressed + HostileImage.extendedEntries + HostileImage.refcounts + HostileImage.bitmaps

    @Test("Refused by name, with code and offset, before anything is written", arguments: all)
    func refused(_ hostile: HostileImage) throws {
        let bytes = try hostile.bytes()
        let storage = CountingStorage(bytes)
        let tally = storage.tally
        var opens = false
        var failure: QCOW2Error?
        do throws(QCOW2Error) {
            var image = try Image(storage: storage)
            opens = true
            try hostile.operation.perform(on: &image)
        } catch {
            failure = error
        }
        #expect(opens == (hostile.operation != .open))
        #expect(failure?.code == hostile.code)
        #expect(failure?.offset == hostile.offset.map { HostOffset($0) })
        #expect(failure?.message.contains(hostile.field) == true, "\(failure?.message ?? "no error")")
        #expect(tally.changeCount == 0)
        // Work follows the file, not what it claims.
        #expect(tally.requestedByteCount <= 4 * bytes.count + 2 << 20)
    }
}
