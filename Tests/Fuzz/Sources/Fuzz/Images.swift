// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

@testable import QCOW2
import QCOW2Testing

/// A golden image with changes that an input chooses.
///
/// The first byte chooses the image, four more the operations; every eight after that are a change.
struct PatchedImage {
    var bytes: [UInt8]
    let operations: [UInt8]

    init?(_ input: [UInt8]) {
        guard let choice = input.first, input.count >= 5 else { return nil }
        let mutator = Self.mutators[Int(choice) % Self.mutators.count]
        bytes = mutator.base
        operations = Array(input[1..<5])
        for start in stride(from: 5, through: min(input.count, 5 + 8 * 16) - 8, by: 8) {
            let choice = input[start..<(start + 8)].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            mutator.mutate(&bytes, choice)
        }
    }

    private static let mutators = goldenImages.map { ImageMutator(base: $0.bytes) }
}

/// The golden images, read from the repository that this program was built from.
let goldenImages: [(name: String, bytes: [UInt8])] = {
    let folder = variable("QCOW2_FIXTURES") ?? "Fixtures/Images"
    return [
        "v2-512", "v3-512", "v3-512-bitmaps", "v3-512-backing", "v3-512-refcount1", "v3-512-refcount2",
        "v3-512-refcount64", "v3-4k", "v3-4k-zstd", "v3-16k-extended",
    ].map { name in
        do throws(QCOW2Error) {
            let file = try FileStorage(path: "\(folder)/\(name).qcow2", for: .readingWithoutLock)
            return (name, try file.readBytes(Int(try file.byteCount()), at: HostOffset(0)))
        } catch {
            complain("\(error)")
        }
    }
}()

/// Opens, lists, reads and inspects a file.
func fuzzImage(_ bytes: [UInt8]) {
    let inspection: Inspection
    do throws(QCOW2Error) {
        inspection = try Inspection(of: InMemoryStorage(bytes, isWritable: false))
    } catch {
        fail("inspecting failed: \(error)")
    }
    for field in inspection.dump.flatMap(\.fields) {
        let start = Int(field.offset.rawValue)
        guard start + field.bytes.count <= bytes.count,
            bytes[start..<(start + field.bytes.count)].elementsEqual(field.bytes)
        else { fail("a field of the dump is not in the file: \(field)") }
    }
    let check = check(bytes)
    guard let image = try? Image(storage: InMemoryStorage(bytes, isWritable: false)) else {
        if inspection.openingError == nil { fail("the inspection says that the image opens") }
        return
    }
    if check == nil { fail("an image that opens can't be checked") }
    if let error = inspection.openingError { fail("the inspection says that the image doesn't open: \(error)") }
    if inspection.snapshots.map(\.snapshot) != image.snapshots { fail("the inspection shows other snapshots") }
    _ = contents(of: image)
}

/// The report of a check; `nil` for an image that can't be checked.
func check(_ bytes: [UInt8]) -> CheckReport? {
    var options = CheckOptions()
    options.decodesCompressedClusters = true
    options.memoryBudget = 1 << 20
    let image: SuspectImage<InMemoryStorage>
    do throws(QCOW2Error) {
        image = try SuspectImage(storage: InMemoryStorage(bytes, isWritable: false))
    } catch {
        return nil
    }
    do throws(QCOW2Error) {
        return try image.check(options) { _ = $0.message }
    } catch {
        fail("checking failed: \(error)")
    }
}

/// What every state of the disk reads as, and the snapshots; `nil` when something can't be read or is large.
///
/// Large is what takes most of an execution's time, and has nothing that a smaller disk hasn't.
func contents(of image: borrowing Image<InMemoryStorage>) -> [SnapshotState: [UInt8]]? {
    var states: [SnapshotState: [UInt8]] = [:]
    func read(_ byteCount: UInt64, _ state: DiskState) -> [UInt8]? {
        guard byteCount <= 1 << 17 else { return nil }
        return try? image.read(Int(byteCount), at: GuestOffset(0), of: state)
    }
    guard image.snapshots.count <= 16 else { return nil }
    var isWhole = true
    if let bytes = read(image.virtualSize, .active) { states[.active] = bytes } else { isWhole = false }
    for snapshot in image.snapshots {
        let state = DiskState.snapshot(.id(snapshot.id))
        if let bytes = read(snapshot.diskSize, state) {
            states[.snapshot(snapshot.idBytes)] = bytes
        } else {
            isWhole = false
        }
    }
    return isWhole ? states : nil
}

enum SnapshotState: Hashable {
    case active
    case snapshot([UInt8])
}
