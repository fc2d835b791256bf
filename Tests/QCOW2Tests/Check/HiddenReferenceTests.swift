// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import Testing

/// Fields that hide references when they are damaged: nothing may be freed while one contradicts another.
@Suite struct HiddenReferenceTests {
    /// The only snapshot of the image, alone in holding some clusters; and where its entry is.
    private static func image(_ name: String) throws -> (bytes: ImageBytes, entry: Int) {
        var image = try Image(storage: InMemoryStorage(Fixtures.bytes("\(name).qcow2")))
        image.guestWriteOptions.bitmaps = .drop
        try image.write([UInt8](repeating: 0xA5, count: 12 << 10), at: GuestOffset(0))
        try image.flush()
        let bytes = ImageBytes(bytes: image.close().bytes)
        return (bytes, Int(bytes.number(at: 64)))
    }

    static let layouts = ["v3-512", "v3-512-refcount4", "v3-512-refcount64", "v3-4k-zstd", "v3-16k-extended"]

    @Test("A snapshot whose L1 table is too short for its disk is refused, and its clusters stay", arguments: layouts)
    func shortL1Table(_ name: String) throws {
        let (sound, entry) = try Self.image(name)
        let entryCount = sound.number(4, at: entry + 8)
        // Fewer entries than the disk needs; or a disk that needs more than there are.
        var damaged = [sound, sound, sound]
        damaged[0].set(0, 4, at: entry + 8)
        damaged[1].set(entryCount - 1, 4, at: entry + 8)
        damaged[2].set(128 << 40, at: entry + 48)
        for (index, image) in damaged.enumerated() {
            let comment = Comment(rawValue: "\(name), damage \(index)")
            var suspect = try Image(storage: InMemoryStorage(image.bytes))
            let report = try suspect.check()
            let code = Finding.Code(rawValue: index == 2 ? "snapshot-disk-size" : "snapshot-l1-too-small")
            #expect(
                report.count(of: code) + report.count(of: Finding.Code(rawValue: "snapshot-l1-too-small")) > 0, comment)
            #expect(!report.isClean, comment)
            #expect(report.count(of: .leak) == 0, comment)
            #expect(throws: QCOW2Error.self, comment) { try suspect.applySnapshot(.name("first")) }
            _ = try? suspect.repair(.leaks)
            _ = try? suspect.repair(.all)
            _ = try? suspect.repair(.leaks)
            // The field mended, everything is as it was.
            var mended = ImageBytes(bytes: suspect.close().bytes)
            let place = Int(mended.number(at: 64))
            mended.set(entryCount, 4, at: place + 8)
            mended.set(sound.number(at: entry + 48), at: place + 48)
            #expect(try Self.content(mended.bytes) == Self.content(sound.bytes), comment)
        }
    }

    @Test("A snapshot whose L1 table is too short can't be read")
    func reading() throws {
        var (image, entry) = try Self.image("v3-512")
        image.set(0, 4, at: entry + 8)
        let reader = try ImageReader(Image(storage: InMemoryStorage(image.bytes, isWritable: false)))
        let error = #expect(throws: QCOW2Error.self) { try reader.view(of: .snapshot(.name("first"))) }
        #expect(error?.code == .corrupt)
    }

    @Test("Bitmaps whose extension isn't recognised any more aren't freed as leaks")
    func bitmaps() throws {
        let sound = ImageBytes(bytes: try Fixtures.bytes("v3-512-bitmaps.qcow2"))
        var damaged = sound
        damaged.set(0x1234_5678, 4, at: 112)
        var image = try Image(storage: InMemoryStorage(damaged.bytes))
        #expect(try image.check().count(of: .leak) > 0)
        try image.repair(.leaks)
        var mended = ImageBytes(bytes: image.close().bytes)
        mended.set(sound.number(4, at: 112), 4, at: 112)
        #expect(try Image(storage: InMemoryStorage(mended.bytes)).check().isClean)
    }

    /// What the snapshot's disk reads as.
    private static func content(_ bytes: [UInt8]) throws -> [UInt8] {
        let reader = try ImageReader(Image(storage: InMemoryStorage(bytes, isWritable: false)))
        let view = try reader.view(of: .snapshot(.name("first")))
        return try view.read(Int(view.virtualSize), at: GuestOffset(0))
    }
}
