/** The frame around every page but the viewer: header, navigation, banner. */
import { AppShell, Container, Group } from "@mantine/core";
import { IconAppWindow, IconLayoutGrid, IconSettings } from "@tabler/icons-react";
import { Suspense } from "react";
import { Link, NavLink, Outlet } from "react-router";
import { isOperator, useUser } from "../api/backend";
import type { User } from "../api/types";
import { ColorSchemeSwitch } from "./color-scheme";
import { Logo } from "./logo";
import { OfflineBanner } from "./offline-banner";
import { PageLoader } from "./page-loader";
import { UserMenu } from "./user-menu";

function pagesFor(user: User) {
  return [
    { to: "/", text: "Catalog", Icon: IconLayoutGrid, end: true },
    { to: "/sessions", text: "My sessions", Icon: IconAppWindow, end: false },
    ...(isOperator(user) ? [{ to: "/admin", text: "Admin", Icon: IconSettings, end: false }] : []),
  ];
}

export function Layout() {
  const pages = pagesFor(useUser());
  return (
    <AppShell header={{ height: 60 }} footer={{ height: { base: 60, sm: 0 } }} padding={0}>
      <a href="#content" className="skip-link">
        Skip to the content
      </a>
      <AppShell.Header>
        <Container size="xl" h="100%">
          <Group h="100%" justify="space-between" wrap="nowrap">
            <Group gap="xl" wrap="nowrap">
              <Link to="/" style={{ color: "inherit", textDecoration: "none" }} aria-label="StreamSpace, to the catalog">
                <Logo />
              </Link>
              <Group component="nav" gap={4} visibleFrom="sm" aria-label="Main">
                {pages.map(({ to, text, Icon, end }) => (
                  <NavLink key={to} to={to} end={end} className="nav-link">
                    <Icon size={18} aria-hidden />
                    {text}
                  </NavLink>
                ))}
              </Group>
            </Group>
            <Group gap="xs" wrap="nowrap">
              <ColorSchemeSwitch />
              <UserMenu />
            </Group>
          </Group>
        </Container>
      </AppShell.Header>
      <AppShell.Main>
        <OfflineBanner />
        <Container size="xl" py="xl" id="content" component="main" tabIndex={-1} style={{ outline: "none" }}>
          <Suspense fallback={<PageLoader />}>
            <Outlet />
          </Suspense>
        </Container>
      </AppShell.Main>
      <AppShell.Footer hiddenFrom="sm">
        <Group component="nav" h="100%" gap={0} wrap="nowrap" align="stretch" aria-label="Main">
          {pages.map(({ to, text, Icon, end }) => (
            <NavLink key={to} to={to} end={end} className="tab-link">
              <Icon size={22} aria-hidden />
              {text}
            </NavLink>
          ))}
        </Group>
      </AppShell.Footer>
    </AppShell>
  );
}
