"""SSIM of a file against the pictures its encoder was fed.

What an encoder was fed is kept losslessly beside the file, from the same recording, because two renderings of a page are
never alike to the pixel (text is hinted by the display's rules, videos fall into other phases). It is taken behind the
conversion to 4:2:0, which both recipes do by the same matrix, and in front of the encoder, which is what differs.

Pictures are paired by their bar codes, never by position, so a lost or doubled picture costs nothing here (the frame
rate says it); each pair counts for as long as the file shows it.
"""
import bisect
import os
import re
import statistics
import subprocess
import threading

from judge import picture_times, read_codes, tool

# Pictures of the file without a twin: more than this, and the pairing is wrong rather than the file.
UNPAIRED_SHARE = 0.05
# Start and end are not compared: the page may still be loading, the last picture may be a closing one.
EDGE_SECONDS = 1.0


def shown_at(times, t):
    """Index of the picture that is shown at `t`."""
    return max(0, bisect.bisect_right(times, t + 1e-4) - 1)


def by_code(file, tap, place):
    """{picture of the file: picture of the tap with the same code, the nearest in time if there are several}."""
    ours, theirs = read_codes(file, *place), read_codes(tap, *place)
    twins = {}
    for index, (t, code) in enumerate(theirs):
        twins.setdefault(code, []).append((t, index))
    twins.pop(None, None)
    shifts = [twins[code][0][0] - t for t, code in ours if code in twins]
    if not shifts:
        raise RuntimeError(f"no picture of {file} is in {tap}")
    shift = statistics.median(shifts)
    return {index: min(twins[code], key=lambda twin: abs(twin[0] - t - shift))[1]
            for index, (t, code) in enumerate(ours) if code in twins}


def pairs(file, tap, place, fps):
    """[(picture of the file, picture of the tap)], one for each slot of the constant rate."""
    times, tap_times = picture_times(file), picture_times(tap)
    slots = [i / fps for i in range(int(EDGE_SECONDS * fps), int((times[-1] - EDGE_SECONDS) * fps))]
    shown = [shown_at(times, t) for t in slots]
    if place is None:
        return [(a, shown_at(tap_times, t)) for a, t in zip(shown, slots)]
    twins = by_code(file, tap, place)
    found = [(a, twins[a]) for a in shown if a in twins]
    if len(found) < (1 - UNPAIRED_SHARE) * len(shown):
        raise RuntimeError(f"only {len(found)} of {len(shown)} pictures of {file} have a twin in {tap}")
    return found


def feed(file, order, size, sink):
    """Decodes `file` and writes the pictures of `order` (ascending, repeats allowed) as raw 4:2:0."""
    length = size[0] * size[1] * 3 // 2
    decoder = subprocess.Popen([tool("ffmpeg"), "-v", "error", "-i", str(file), "-an", "-fps_mode", "passthrough",
                                "-pix_fmt", "yuv420p", "-f", "rawvideo", "-"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE)
    at = -1
    try:
        with os.fdopen(sink, "wb") as out:
            for wanted in order:
                while at < wanted:
                    picture = decoder.stdout.read(length)
                    at += 1
                out.write(picture)
    except BrokenPipeError:
        pass  # the comparison has ended, and says why itself
    finally:
        decoder.kill()
        decoder.wait()
        decoder.stdout.close()


def likeness(file, tap, place, fps, size):
    """SSIM (all planes, as FFmpeg weighs them), 1 for equal."""
    both = pairs(file, tap, place, fps)
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", f"{size[0]}x{size[1]}", "-framerate", str(fps)]
    pipes = [os.pipe(), os.pipe()]
    compare = subprocess.Popen(
        [tool("ffmpeg"), "-hide_banner", "-nostdin", *raw, "-i", f"pipe:{pipes[0][0]}", *raw, "-i", f"pipe:{pipes[1][0]}",
         "-lavfi", "[0:v][1:v]ssim", "-f", "null", "-"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        pass_fds=[read for read, _ in pipes])
    for read, _ in pipes:
        os.close(read)
    threads = [threading.Thread(target=feed, args=(source, [pair[side] for pair in both], size, pipes[side][1]))
               for side, source in enumerate((file, tap))]
    for thread in threads:
        thread.start()
    text = compare.communicate()[1].decode(errors="replace")
    for thread in threads:
        thread.join()
    found = re.search(r"SSIM Y:([\d.]+).*All:([\d.]+)", text)
    if not found:
        raise RuntimeError(f"no SSIM of {file}\n{text[-1500:]}")
    return float(found[2])
