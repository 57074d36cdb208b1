//! The compositor: its state, what a commit does, and the loop that keeps time.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use wayland_protocols::wp::presentation_time::server::wp_presentation::WpPresentation;
use wayland_protocols::wp::presentation_time::server::wp_presentation_feedback::{Kind, WpPresentationFeedback};
use wayland_protocols::xdg::shell::server::{xdg_popup::XdgPopup, xdg_toplevel, xdg_wm_base::XdgWmBase};
use wayland_server::backend::{ClientData, ObjectId};
use wayland_server::protocol::{
    wl_buffer::WlBuffer, wl_callback::WlCallback, wl_compositor::WlCompositor, wl_output::WlOutput, wl_shm::WlShm,
    wl_subcompositor::WlSubcompositor,
};
use wayland_server::{Display, ListeningSocket, Resource};

use super::pacing::{Pacer, Placed};
use super::picture::Picture;
use super::planes::Overlay;
use super::rect::Rect;
use super::shm::Buffer;
use super::surface::{Positioner, Role, Surface};
use super::{Closed, Config, Control, Frame, Stats};
use crate::recording::clock::{MediaClock, monotonic_ns};
use crate::task::spec::Size;
use crate::task::timeline::{FrameRate, SAMPLE_RATE};

/// Answers due at the begin of a slot.
#[derive(Default)]
struct Answers {
    callbacks: Vec<(u64, WlCallback)>,
    feedbacks: Vec<(u64, WpPresentationFeedback, ObjectId)>,
}

/// Everything the protocol handlers work on.
pub struct State {
    pub(super) size: Size,
    pub(super) rate: FrameRate,
    pub(super) surfaces: HashMap<ObjectId, Surface>,
    pub(super) outputs: Vec<WlOutput>,
    /// Surface of the window that is recorded.
    pub(super) main: Option<ObjectId>,
    /// Surfaces of popups, lowest first.
    popups: Vec<ObjectId>,
    picture: Picture,
    pacer: Pacer,
    clock: MediaClock,
    answers: Answers,
    serial: u32,
    out: Box<dyn FnMut(Frame) -> bool + Send>,
    stats: Arc<Stats>,
    /// Told when the last slot before a closing was given its picture.
    closing: Option<Closed>,
    last_blank_check: u64,
}

impl State {
    fn now(&self) -> u64 {
        self.clock.now()
    }

    fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    /// A client's commit.
    pub(super) fn commit(&mut self, id: &ObjectId) {
        let now = self.now();
        let Some(surface) = self.surfaces.get_mut(id) else { return };
        let (attached, damage) = (surface.attached.take(), surface.damage.take());
        let callbacks = std::mem::take(&mut surface.callbacks);
        let feedbacks = std::mem::take(&mut surface.feedbacks);
        if surface.xdg.is_some() && !surface.configured {
            self.configure(id);
        }
        let drawn = match attached {
            Some(Some(buffer)) => {
                let drawn = self.show(id, &buffer, damage);
                buffer.release();
                drawn
            }
            Some(None) => {
                self.popup_gone(id);
                false
            }
            None => false,
        };
        let Placed { slot, first } = match drawn {
            true => self.pacer.commit(now),
            false => Placed { slot: self.pacer.next_slot(now), first: false },
        };
        let again = if first { now / self.rate.slot() } else { slot };
        self.answers.callbacks.extend(callbacks.into_iter().map(|c| (again, c)));
        self.answers.feedbacks.extend(feedbacks.into_iter().map(|f| (slot, f, id.clone())));
        self.run_due(now);
    }

    /// Takes over what a buffer shows. Says whether anything that is recorded changed.
    fn show(&mut self, id: &ObjectId, buffer: &WlBuffer, damage: Option<(i32, i32, i32, i32)>) -> bool {
        let Some(buffer) = buffer.data::<Option<Buffer>>().and_then(Option::as_ref) else { return false };
        let Some(surface) = self.surfaces.get_mut(id) else { return false };
        let first = !std::mem::replace(&mut surface.mapped, true);
        if first {
            for output in self.outputs.iter().filter(|o| o.client() == surface.object.client()) {
                surface.object.enter(output);
            }
        }
        if self.main.as_ref() == Some(id) {
            let whole = Rect::whole(self.size);
            let rect = match damage {
                Some((x, y, w, h)) if !first => Rect::clipped(x, y, w, h, self.size),
                _ => Some(whole),
            };
            let Some(rect) = rect else { return false };
            let picture = &mut self.picture;
            Stats::add(&self.stats.commits, 1);
            return buffer.read(|pixels| picture.update(pixels, rect)).is_some();
        }
        if let Role::Popup { x, y, .. } = surface.role {
            let (width, height) = buffer.size();
            let (left, top) = (x - surface.geometry.0, y - surface.geometry.1);
            let size = self.size;
            surface.overlay = (width <= size.width && height <= size.height)
                .then(|| {
                    buffer.read(|pixels| {
                        let row = width as usize * 4;
                        let rows = pixels.bytes.chunks(pixels.stride as usize).take(height as usize);
                        let pixels = rows.flat_map(|r| &r[..row]).copied().collect();
                        Overlay { x: left, y: top, width, height, pixels, alpha: buffer.alpha }
                    })
                })
                .flatten();
            return surface.overlay.is_some();
        }
        false
    }

    fn configure(&mut self, id: &ObjectId) {
        let serial = self.next_serial();
        let (width, height) = (self.size.width as i32, self.size.height as i32);
        let Some(surface) = self.surfaces.get_mut(id) else { return };
        surface.configured = true;
        match &surface.role {
            Role::Toplevel(toplevel) => {
                let states = [xdg_toplevel::State::Fullscreen, xdg_toplevel::State::Activated];
                let bytes = states.iter().flat_map(|s| u32::from(*s).to_ne_bytes()).collect();
                toplevel.configure(width, height, bytes);
            }
            Role::Popup { popup, x, y, width, height } => popup.configure(*x, *y, *width, *height),
            Role::None => {}
        }
        if let Some(xdg) = &surface.xdg {
            xdg.configure(serial);
        }
    }

    pub(super) fn open_popup(
        &mut self,
        id: &ObjectId,
        popup: XdgPopup,
        parent: Option<&wayland_protocols::xdg::shell::server::xdg_surface::XdgSurface>,
        wanted: Positioner,
    ) {
        let parent = parent.and_then(|p| p.data::<ObjectId>()).and_then(|p| self.surfaces.get(p));
        // A nested popup's place counts from its parent's.
        let (px, py) = match parent.map(|p| &p.role) {
            Some(Role::Popup { x, y, .. }) => (*x, *y),
            _ => (0, 0),
        };
        let (x, y) = wanted.place(self.size.width as i32, self.size.height as i32);
        let (width, height) = wanted.size;
        if let Some(surface) = self.surfaces.get_mut(id) {
            surface.role = Role::Popup { popup, x: x + px, y: y + py, width, height };
            self.popups.push(id.clone());
        }
    }

    /// The window of a surface was closed. The next one that is opened is recorded if it was the recorded one.
    pub(super) fn window_gone(&mut self, id: &ObjectId) {
        if self.main.as_ref() == Some(id) {
            self.main = None;
        }
    }

    pub(super) fn popup_gone(&mut self, id: &ObjectId) {
        let Some(surface) = self.surfaces.get_mut(id) else { return };
        if surface.overlay.take().is_some() {
            let now = self.now();
            self.pacer.commit(now);
        }
        self.popups.retain(|p| p != id);
    }

    /// Emits what has become due and answers the clients whose slot has begun.
    fn run_due(&mut self, now: u64) {
        let overlays: Vec<Overlay> =
            self.popups.iter().filter_map(|id| self.surfaces.get(id)?.overlay.clone()).collect();
        while let Some(emission) = self.pacer.due(now) {
            let Some(copy) = self.picture.copy(&overlays) else {
                Stats::add(&self.stats.refused, 1);
                self.pacer.refused(emission);
                break;
            };
            if now >= self.last_blank_check + SAMPLE_RATE {
                self.last_blank_check = now;
                self.stats.set_blank(self.picture.is_blank());
            }
            Stats::add(if emission.fresh { &self.stats.fresh } else { &self.stats.repeated }, 1);
            if emission.fresh {
                self.stats.note_delay(emission.slot * self.rate.slot(), now);
            }
            let blank = self.stats.blank();
            if !(self.out)(Frame { recorded: emission.recorded, fresh: emission.fresh, blank, picture: copy }) {
                Stats::add(&self.stats.refused, 1);
            }
        }
        Stats::set(&self.stats.painted_over, self.pacer.painted_over());
        self.answer(now);
        if self.pacer.deadline().is_none()
            && let (Some(closed), false) = (&self.closing, self.pacer.gate().is_open())
            && self.pacer.gate().closed_at().is_some_and(|c| c <= now)
        {
            let _ = closed.send(self.pacer.gate().recorded_until_close());
            self.closing = None;
        }
    }

    fn answer(&mut self, now: u64) {
        let due = |slot: &u64| slot * self.rate.slot() <= now;
        let callbacks = &mut self.answers.callbacks;
        for (slot, callback) in callbacks.extract_if(.., |(slot, _)| due(slot)) {
            // The argument is a time in milliseconds with an undefined base; the slot's keeps it even.
            callback.done((slot * self.rate.slot() * 1000 / SAMPLE_RATE) as u32);
        }
        let refresh_ns = (self.pacer.frame() * 1_000_000_000 / SAMPLE_RATE) as u32;
        for (slot, feedback, surface) in self.answers.feedbacks.extract_if(.., |(slot, _, _)| due(slot)) {
            let Some(surface) = self.surfaces.get(&surface) else {
                feedback.discarded();
                continue;
            };
            for output in self.outputs.iter().filter(|o| o.client() == surface.object.client()) {
                feedback.sync_output(output);
            }
            let ns = self.clock.ns_at(slot * self.rate.slot());
            let seconds = ns / 1_000_000_000;
            let flags = Kind::Vsync | Kind::HwClock;
            feedback.presented(
                (seconds >> 32) as u32,
                seconds as u32,
                (ns % 1_000_000_000) as u32,
                refresh_ns,
                (slot >> 32) as u32,
                slot as u32,
                flags,
            );
        }
    }

    /// Wall sample at which something becomes due.
    fn deadline(&self) -> Option<u64> {
        let answers = self.answers.callbacks.iter().map(|(s, _)| *s);
        let answers = answers.chain(self.answers.feedbacks.iter().map(|(s, _, _)| *s)).min();
        let closing = self.closing.is_some().then(|| self.pacer.gate().closed_at()).flatten();
        answers.map(|s| s * self.rate.slot()).into_iter().chain(self.pacer.deadline()).chain(closing).min()
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Open(wall) => self.pacer.gate_mut().open(wall),
            Control::Close(wall, closed) => {
                self.pacer.gate_mut().close(wall);
                self.closing = Some(closed);
            }
            Control::Divide(divisor) => self.pacer.set_divisor(divisor),
        }
    }
}

/// Credentials are not needed: the socket lies in a private directory.
struct AnyClient;
impl ClientData for AnyClient {}

/// Runs the compositor until its handle is gone.
pub(super) fn run(
    config: Config,
    socket: &ListeningSocket,
    wake: &impl AsFd,
    controls: &Receiver<Control>,
    stats: Arc<Stats>,
    out: Box<dyn FnMut(Frame) -> bool + Send>,
) -> std::io::Result<()> {
    let mut display = Display::<State>::new().map_err(std::io::Error::other)?;
    let mut handle = display.handle();
    handle.create_global::<State, WlCompositor, ()>(4, ());
    handle.create_global::<State, WlSubcompositor, ()>(1, ());
    handle.create_global::<State, WlShm, ()>(1, ());
    handle.create_global::<State, WlOutput, ()>(2, ());
    handle.create_global::<State, XdgWmBase, ()>(3, ());
    handle.create_global::<State, WpPresentation, ()>(1, ());
    let mut state = State {
        size: config.size,
        rate: config.rate,
        surfaces: HashMap::new(),
        outputs: Vec::new(),
        main: None,
        popups: Vec::new(),
        picture: Picture::new(config.size),
        pacer: Pacer::new(config.rate),
        clock: config.clock,
        answers: Answers::default(),
        serial: 0,
        out,
        stats,
        closing: None,
        last_blank_check: 0,
    };
    loop {
        let deadline = state.deadline().map(|sample| state.clock.ns_at(sample));
        let readable = wait(display.as_fd(), socket.as_fd(), wake.as_fd(), deadline)?;
        if let Some(late) = deadline.and_then(|d| monotonic_ns().checked_sub(d)) {
            state.stats.note_lateness(late / 1000);
        }
        if readable[1]
            && let Ok(Some(stream)) = socket.accept()
        {
            let _ = handle.insert_client(stream, Arc::new(AnyClient));
        }
        if readable[2] {
            let mut count = [0; 8];
            let _ = rustix::io::read(wake.as_fd(), &mut count);
        }
        loop {
            match controls.try_recv() {
                Ok(control) => state.control(control),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
        let now = state.now();
        state.run_due(now);
        display.dispatch_clients(&mut state)?;
        display.flush_clients()?;
    }
}

/// Sleeps until a descriptor is readable or the deadline (CLOCK_MONOTONIC) has come.
fn wait(
    clients: std::os::fd::BorrowedFd<'_>,
    socket: std::os::fd::BorrowedFd<'_>,
    wake: std::os::fd::BorrowedFd<'_>,
    deadline_ns: Option<u64>,
) -> std::io::Result<[bool; 3]> {
    let mut fds = [clients, socket, wake].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let timeout = deadline_ns.map(|d| {
        let left = d.saturating_sub(monotonic_ns());
        Timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as _ }
    });
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(std::array::from_fn(|i| !fds[i].revents().is_empty())),
        Err(e) => Err(e.into()),
    }
}

/// A descriptor that wakes [`run`].
pub(super) fn waker() -> std::io::Result<std::os::fd::OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}
