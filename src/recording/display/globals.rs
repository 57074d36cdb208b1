//! The core protocol: surfaces, buffers, output, presentation. Subsurfaces are accepted and not shown.

use std::sync::Arc;

use wayland_protocols::wp::presentation_time::server::{
    wp_presentation::{self, WpPresentation},
    wp_presentation_feedback::{self, WpPresentationFeedback},
};
use wayland_server::backend::ClientId;
use wayland_server::protocol::{
    wl_buffer::{self, WlBuffer},
    wl_callback::{self, WlCallback},
    wl_compositor::{self, WlCompositor},
    wl_output::{self, WlOutput},
    wl_region::{self, WlRegion},
    wl_shm::{self, WlShm},
    wl_shm_pool::{self, WlShmPool},
    wl_subcompositor::{self, WlSubcompositor},
    wl_subsurface::{self, WlSubsurface},
    wl_surface::{self, WlSurface},
};
use wayland_server::{Client, DataInit, Dispatch, DisplayHandle, GlobalDispatch, New, Resource, WEnum};

use super::server::State;
use super::shm::{Buffer, Pool};
use super::surface::{MAX_OUTSTANDING, Surface};

/// CLOCK_MONOTONIC, the clock that stamps sound too (`wp_presentation.clock_id`).
const CLOCK_MONOTONIC: u32 = 1;

/// A global that needs nothing said at binding.
macro_rules! silent_global {
    ($($interface:ty),*) => {$(
        impl GlobalDispatch<$interface, ()> for State {
            fn bind(_: &mut Self, _: &DisplayHandle, _: &Client, resource: New<$interface>, (): &(), init: &mut DataInit<'_, Self>) {
                init.init(resource, ());
            }
        }
    )*};
}
silent_global!(WlCompositor, WlSubcompositor);

/// An object whose requests change nothing here.
macro_rules! no_requests {
    ($($interface:ty, $request:ty, $data:ty);*) => {$(
        impl Dispatch<$interface, $data> for State {
            fn request(_: &mut Self, _: &Client, _: &$interface, _: $request, _: &$data, _: &DisplayHandle, _: &mut DataInit<'_, Self>) {}
        }
    )*};
}
no_requests!(
    WlRegion, wl_region::Request, ();
    WlSubsurface, wl_subsurface::Request, ();
    WlCallback, wl_callback::Request, ();
    WpPresentationFeedback, wp_presentation_feedback::Request, ();
    WlBuffer, wl_buffer::Request, Option<Buffer>
);

impl Dispatch<WlCompositor, ()> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        _: &WlCompositor,
        request: wl_compositor::Request,
        (): &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        match request {
            wl_compositor::Request::CreateSurface { id } => {
                let surface = init.init(id, ());
                state.surfaces.insert(surface.id(), Surface::new(surface));
            }
            wl_compositor::Request::CreateRegion { id } => {
                init.init(id, ());
            }
            _ => {}
        }
    }
}

impl Dispatch<WlSubcompositor, ()> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &WlSubcompositor,
        request: wl_subcompositor::Request,
        (): &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        if let wl_subcompositor::Request::GetSubsurface { id, .. } = request {
            init.init(id, ());
        }
    }
}

impl Dispatch<WlSurface, ()> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        object: &WlSurface,
        request: wl_surface::Request,
        (): &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        if let wl_surface::Request::Commit = request {
            state.commit(&object.id());
            return;
        }
        let Some(surface) = state.surfaces.get_mut(&object.id()) else { return };
        match request {
            wl_surface::Request::Attach { buffer, .. } => {
                if let Some(Some(unused)) = surface.attached.replace(buffer)
                    && surface.attached.as_ref().and_then(Option::as_ref) != Some(&unused)
                {
                    unused.release();
                }
            }
            wl_surface::Request::Damage { x, y, width, height }
            | wl_surface::Request::DamageBuffer { x, y, width, height } => surface.add_damage(x, y, width, height),
            wl_surface::Request::Frame { callback } => {
                let callback = init.init(callback, ());
                if surface.callbacks.len() < MAX_OUTSTANDING {
                    surface.callbacks.push(callback);
                }
            }
            _ => {}
        }
    }

    fn destroyed(state: &mut Self, _: ClientId, object: &WlSurface, (): &()) {
        state.window_gone(&object.id());
        state.popup_gone(&object.id());
        state.surfaces.remove(&object.id());
    }
}

impl GlobalDispatch<WlShm, ()> for State {
    fn bind(_: &mut Self, _: &DisplayHandle, _: &Client, resource: New<WlShm>, (): &(), init: &mut DataInit<'_, Self>) {
        let shm = init.init(resource, ());
        shm.format(wl_shm::Format::Argb8888);
        shm.format(wl_shm::Format::Xrgb8888);
    }
}

impl Dispatch<WlShm, ()> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        shm: &WlShm,
        request: wl_shm::Request,
        (): &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        if let wl_shm::Request::CreatePool { id, fd, size } = request {
            let pool = Pool::new(fd, size).map(Arc::new);
            if pool.is_none() {
                shm.post_error(wl_shm::Error::InvalidFd, "pool cannot be mapped");
            }
            init.init(id, pool);
        }
    }
}

impl Dispatch<WlShmPool, Option<Arc<Pool>>> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        object: &WlShmPool,
        request: wl_shm_pool::Request,
        pool: &Option<Arc<Pool>>,
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        match request {
            wl_shm_pool::Request::CreateBuffer { id, offset, width, height, stride, format } => {
                let alpha = format == WEnum::Value(wl_shm::Format::Argb8888);
                let buffer = pool.clone().and_then(|pool| Buffer::new(pool, offset, width, height, stride, alpha));
                if buffer.is_none() {
                    object.post_error(wl_shm::Error::InvalidStride, "buffer does not make sense");
                }
                init.init(id, buffer);
            }
            wl_shm_pool::Request::Resize { size } => {
                if let Some(pool) = pool {
                    pool.resize(size);
                }
            }
            _ => {}
        }
    }
}

impl GlobalDispatch<WlOutput, ()> for State {
    fn bind(
        state: &mut Self,
        _: &DisplayHandle,
        _: &Client,
        resource: New<WlOutput>,
        (): &(),
        init: &mut DataInit<'_, Self>,
    ) {
        let output = init.init(resource, ());
        let (width, height) = (state.size.width as i32, state.size.height as i32);
        let subpixel = wl_output::Subpixel::None;
        output.geometry(0, 0, 0, 0, subpixel, "panorec".into(), "recorder".into(), wl_output::Transform::Normal);
        let refresh_mhz = i32::try_from(state.rate.per_second() * 1000).unwrap_or(i32::MAX);
        output.mode(wl_output::Mode::Current | wl_output::Mode::Preferred, width, height, refresh_mhz);
        if output.version() >= 2 {
            output.scale(1);
            output.done();
        }
        state.outputs.push(output);
    }
}

impl Dispatch<WlOutput, ()> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &WlOutput,
        _: wl_output::Request,
        (): &(),
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
    }

    fn destroyed(state: &mut Self, _: ClientId, output: &WlOutput, (): &()) {
        state.outputs.retain(|o| o != output);
    }
}

impl GlobalDispatch<WpPresentation, ()> for State {
    fn bind(
        _: &mut Self,
        _: &DisplayHandle,
        _: &Client,
        resource: New<WpPresentation>,
        (): &(),
        init: &mut DataInit<'_, Self>,
    ) {
        init.init(resource, ()).clock_id(CLOCK_MONOTONIC);
    }
}

impl Dispatch<WpPresentation, ()> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        _: &WpPresentation,
        request: wp_presentation::Request,
        (): &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        if let wp_presentation::Request::Feedback { surface, callback } = request {
            let feedback = init.init(callback, ());
            if let Some(known) = state.surfaces.get_mut(&surface.id())
                && known.feedbacks.len() < MAX_OUTSTANDING
            {
                known.feedbacks.push(feedback);
            }
        }
    }
}
