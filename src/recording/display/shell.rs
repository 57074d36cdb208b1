//! The shell: windows and popups (`xdg_wm_base`).

use std::sync::{Mutex, PoisonError};

use wayland_protocols::xdg::shell::server::{
    xdg_popup::{self, XdgPopup},
    xdg_positioner::{self, Anchor, Gravity, XdgPositioner},
    xdg_surface::{self, XdgSurface},
    xdg_toplevel::{self, XdgToplevel},
    xdg_wm_base::{self, XdgWmBase},
};
use wayland_server::backend::{ClientId, ObjectId};
use wayland_server::{Client, DataInit, Dispatch, DisplayHandle, GlobalDispatch, New, Resource, WEnum};

use super::server::State;
use super::surface::{Positioner, Role};

impl GlobalDispatch<XdgWmBase, ()> for State {
    fn bind(
        _: &mut Self,
        _: &DisplayHandle,
        _: &Client,
        resource: New<XdgWmBase>,
        (): &(),
        init: &mut DataInit<'_, Self>,
    ) {
        init.init(resource, ());
    }
}

impl Dispatch<XdgWmBase, ()> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        _: &XdgWmBase,
        request: xdg_wm_base::Request,
        (): &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        match request {
            xdg_wm_base::Request::CreatePositioner { id } => {
                init.init(id, Mutex::new(Positioner::default()));
            }
            xdg_wm_base::Request::GetXdgSurface { id, surface } => {
                let xdg = init.init(id, surface.id());
                if let Some(known) = state.surfaces.get_mut(&surface.id()) {
                    known.xdg = Some(xdg);
                }
            }
            _ => {}
        }
    }
}

impl Dispatch<XdgPositioner, Mutex<Positioner>> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &XdgPositioner,
        request: xdg_positioner::Request,
        data: &Mutex<Positioner>,
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        let mut positioner = data.lock().unwrap_or_else(PoisonError::into_inner);
        match request {
            xdg_positioner::Request::SetSize { width, height } => positioner.size = (width, height),
            xdg_positioner::Request::SetAnchorRect { x, y, width, height } => {
                positioner.anchor_rect = (x, y, width, height);
            }
            xdg_positioner::Request::SetAnchor { anchor: WEnum::Value(anchor) } => {
                positioner.anchor = direction(anchor);
            }
            xdg_positioner::Request::SetGravity { gravity: WEnum::Value(gravity) } => {
                positioner.gravity = match gravity {
                    Gravity::Top => (0, -1),
                    Gravity::Bottom => (0, 1),
                    Gravity::Left => (-1, 0),
                    Gravity::Right => (1, 0),
                    Gravity::TopLeft => (-1, -1),
                    Gravity::BottomLeft => (-1, 1),
                    Gravity::TopRight => (1, -1),
                    Gravity::BottomRight => (1, 1),
                    _ => (0, 0),
                };
            }
            xdg_positioner::Request::SetOffset { x, y } => positioner.offset = (x, y),
            _ => {}
        }
    }
}

fn direction(anchor: Anchor) -> (i32, i32) {
    match anchor {
        Anchor::Top => (0, -1),
        Anchor::Bottom => (0, 1),
        Anchor::Left => (-1, 0),
        Anchor::Right => (1, 0),
        Anchor::TopLeft => (-1, -1),
        Anchor::BottomLeft => (-1, 1),
        Anchor::TopRight => (1, -1),
        Anchor::BottomRight => (1, 1),
        _ => (0, 0),
    }
}

impl Dispatch<XdgSurface, ObjectId> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        _: &XdgSurface,
        request: xdg_surface::Request,
        surface: &ObjectId,
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        match request {
            xdg_surface::Request::GetToplevel { id } => {
                let toplevel = init.init(id, surface.clone());
                if let Some(known) = state.surfaces.get_mut(surface) {
                    known.role = Role::Toplevel(toplevel);
                }
                // The first window is the page's; those that it opens do not cover it.
                state.main.get_or_insert_with(|| surface.clone());
            }
            xdg_surface::Request::GetPopup { id, parent, positioner } => {
                let popup = init.init(id, surface.clone());
                let placed = positioner.data::<Mutex<Positioner>>();
                let wanted = placed.map(|p| *p.lock().unwrap_or_else(PoisonError::into_inner)).unwrap_or_default();
                state.open_popup(surface, popup, parent.as_ref(), wanted);
            }
            xdg_surface::Request::SetWindowGeometry { x, y, .. } => {
                if let Some(known) = state.surfaces.get_mut(surface) {
                    known.geometry = (x, y);
                }
            }
            _ => {}
        }
    }
}

impl Dispatch<XdgToplevel, ObjectId> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &XdgToplevel,
        _: xdg_toplevel::Request,
        _: &ObjectId,
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        // Titles, sizes and states are the client's wishes; the window stays what the picture needs.
    }

    fn destroyed(state: &mut Self, _: ClientId, _: &XdgToplevel, surface: &ObjectId) {
        state.window_gone(surface);
    }
}

impl Dispatch<XdgPopup, ObjectId> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        popup: &XdgPopup,
        request: xdg_popup::Request,
        _: &ObjectId,
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        if let xdg_popup::Request::Reposition { token, .. } = request
            && popup.version() >= 3
        {
            popup.repositioned(token);
        }
    }

    fn destroyed(state: &mut Self, _: ClientId, _: &XdgPopup, surface: &ObjectId) {
        state.popup_gone(surface);
    }
}
