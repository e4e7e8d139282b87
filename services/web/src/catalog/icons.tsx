/** The pictures of templates and their sessions. */
import {
  IconAppWindow, IconBook, IconBrandBlender, IconBrandChrome, IconBrandDebian, IconBrandDocker, IconBrandEdge,
  IconBrandFirefox, IconBrandGit, IconBrandPython, IconBrandUbuntu, IconBrandVscode, IconBrush, IconCalculator,
  IconCamera, IconChartBar, IconCode, IconDatabase, IconDeviceDesktop, IconDeviceGamepad2, IconFileText, IconFolder,
  IconMail, IconMessageCircle, IconMovie, IconMusic, IconNotebook, IconPalette, IconPhoto, IconRobot, IconSchool,
  IconServer, IconShieldLock, IconTerminal2, IconTools, IconVectorBezier2, IconWorld, type TablerIcon,
} from "@tabler/icons-react";
import type { Template } from "../api/types";
import { pictureFor, tileColor } from "./picture";

const ICONS: Record<string, TablerIcon | undefined> = {
  "app-window": IconAppWindow, book: IconBook, "brand-blender": IconBrandBlender, "brand-chrome": IconBrandChrome,
  "brand-debian": IconBrandDebian, "brand-docker": IconBrandDocker, "brand-edge": IconBrandEdge,
  "brand-firefox": IconBrandFirefox, "brand-git": IconBrandGit, "brand-python": IconBrandPython,
  "brand-ubuntu": IconBrandUbuntu, "brand-vscode": IconBrandVscode, brush: IconBrush, calculator: IconCalculator,
  camera: IconCamera, "chart-bar": IconChartBar, code: IconCode, database: IconDatabase,
  "device-desktop": IconDeviceDesktop, "device-gamepad-2": IconDeviceGamepad2, "device-gamepad": IconDeviceGamepad2,
  "file-text": IconFileText, folder: IconFolder, mail: IconMail, "message-circle": IconMessageCircle, movie: IconMovie,
  music: IconMusic, notebook: IconNotebook, palette: IconPalette, photo: IconPhoto, robot: IconRobot,
  school: IconSchool, server: IconServer, "shield-lock": IconShieldLock, terminal: IconTerminal2,
  "terminal-2": IconTerminal2, tools: IconTools, "vector-bezier": IconVectorBezier2, "vector-bezier-2": IconVectorBezier2,
  world: IconWorld,
};

interface TileProps {
  template: Pick<Template, "icon" | "name" | "displayName" | "id">;
  size?: number;
}

export function TemplateTile({ template, size = 48 }: TileProps) {
  const picture = pictureFor(template);
  const Icon = picture.kind === "icon" ? ICONS[picture.name] : undefined;
  const color = tileColor(template.id);
  return (
    <div
      className="tile"
      aria-hidden="true"
      style={{
        width: size,
        height: size,
        fontSize: size * 0.36,
        background: `linear-gradient(145deg, color-mix(in srgb, ${color} 82%, white), ${color})`,
      }}
    >
      {Icon ? <Icon size={size * 0.56} stroke={1.7} /> : picture.text}
    </div>
  );
}

/** The tile of a session, which knows only its template's names. */
export function SessionTile({ session, size }: { session: { templateId: string; templateName: string; templateDisplayName: string }; size?: number }) {
  const template = { id: session.templateId, name: session.templateName, displayName: session.templateDisplayName, icon: null };
  return <TemplateTile template={template} size={size} />;
}
